-- Work for LuaJIT's compiler, its code cache and its FFI. Each line it prints is an answer that the test knows.
local bit, ffi, jit = require("bit"), require("ffi"), require("jit")

local function answer(name, value)
    print(name .. " " .. tostring(value))
end

local function primes(limit)
    local composite = ffi.new("uint8_t[?]", limit + 1)
    local count = 0
    for i = 2, limit do
        if composite[i] == 0 then
            count = count + 1
            for j = i * i, limit, i do
                composite[j] = 1
            end
        end
    end
    return count
end

local function crc32(length) -- of the bytes 0, 7, 14, ... modulo 256; the polynomial of zlib
    local crc = bit.bnot(0)
    for i = 0, length - 1 do
        crc = bit.bxor(crc, (i * 7) % 256)
        for _ = 1, 8 do
            crc = bit.bxor(bit.rshift(crc, 1), bit.band(0xedb88320, -bit.band(crc, 1)))
        end
    end
    return bit.tohex(bit.bnot(crc))
end

local function queens(n)
    local full = bit.lshift(1, n) - 1
    local function place(columns, left, right)
        if columns == full then
            return 1
        end
        local count = 0
        local free = bit.band(full, bit.bnot(bit.bor(columns, left, right)))
        while free ~= 0 do
            local one = bit.band(free, -free)
            free = free - one
            count = count + place(bit.bor(columns, one), bit.lshift(bit.bor(left, one), 1), bit.rshift(bit.bor(right, one), 1))
        end
        return count
    end
    return place(0, 0, 0)
end

local function trees(depth) -- garbage, and what survives it
    local function grow(d)
        return d == 0 and {} or { grow(d - 1), grow(d - 1) }
    end
    local function nodes(tree)
        return tree[1] and 1 + nodes(tree[1]) + nodes(tree[2]) or 1
    end
    local total, kept = 0, grow(depth)
    for _ = 1, 8 do
        total = total + nodes(grow(depth))
    end
    return total + nodes(kept)
end

local function mandelbrot(size) -- doubles, which are the same everywhere
    local inside = 0
    for y = 0, size - 1 do
        for x = 0, size - 1 do
            local cr, ci, zr, zi, n = 2 * x / size - 1.5, 2 * y / size - 1, 0, 0, 0
            while n < 50 and zr * zr + zi * zi <= 4 do
                zr, zi, n = zr * zr - zi * zi + cr, 2 * zr * zi + ci, n + 1
            end
            inside = inside + n
        end
    end
    return inside
end

local function generated(count) -- functions that did not exist before, compiled, run, and thrown away with all machine code
    local total = 0
    for i = 1, count do
        local f = assert(loadstring("local n = 0 for i = 1, 200 do n = n + i % " .. i % 17 + 1 .. " end return n"))
        for _ = 1, 3 do
            total = total + f()
        end
        if i % 50 == 0 then
            jit.flush()
        end
    end
    return total
end

local function callbacks(length) -- C calls code that the FFI generates, which calls Lua
    ffi.cdef("void qsort(void *, size_t, size_t, int (*)(const int *, const int *));")
    local values, seed = ffi.new("int[?]", length), 1
    for i = 0, length - 1 do
        seed = (seed * 16807) % 2147483647
        values[i] = seed
    end
    local compare = ffi.cast("int (*)(const int *, const int *)", function(a, b)
        return a[0] < b[0] and -1 or a[0] > b[0] and 1 or 0
    end)
    ffi.C.qsort(values, length, 4, compare)
    compare:free()
    local sum = 0
    for i = 0, length - 1 do
        assert(i == 0 or values[i - 1] <= values[i])
        sum = (sum * 31 + values[i]) % 2147483647
    end
    return sum
end

local function churn(count) -- the same work compiled, interpreted, and changed from one to the other in the middle
    local function work(n)
        local a = 0
        for i = 1, n do
            a = (a * 33 + i) % 65521
        end
        return a
    end
    local total = 0
    for i = 1, count do
        if i % 3 == 0 then
            jit.off(work, true)
        elseif i % 3 == 1 then
            jit.on(work, true)
        else
            jit.flush(work, true)
        end
        total = total + work(500 + i)
    end
    return total
end

answer("primes", primes(5000000))
answer("crc32", crc32(1000000))
answer("queens", queens(10))
answer("trees", trees(13))
answer("mandelbrot", mandelbrot(300))
answer("generated", generated(5000))
answer("callbacks", callbacks(50000))
answer("churn", churn(3000))
answer("compiler", jit.status() and "on" or "off")
