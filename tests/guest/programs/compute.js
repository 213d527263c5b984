// Work for V8's compilers, its collector and its threads. Each line it prints is an answer that the test knows.
"use strict";
const crypto = require("crypto");
const { Worker, isMainThread, workerData } = require("worker_threads");

function answer(name, value) {
    console.log(`${name} ${value}`);
}

function primes(limit) {
    const composite = new Uint8Array(limit + 1);
    let count = 0;
    for (let i = 2; i <= limit; i++) {
        if (composite[i]) continue;
        count++;
        for (let j = i * i; j <= limit; j += i) composite[j] = 1;
    }
    return count;
}

function pi(digits) { // Gibbons' spigot; big integers
    let [q, r, t, k, m, x] = [1n, 0n, 1n, 1n, 3n, 3n];
    let text = "";
    while (text.length < digits) {
        if (4n * q + r - t < m * t) {
            text += m;
            [q, r, m] = [10n * q, 10n * (r - m * t), (10n * (3n * q + r)) / t - 10n * m];
        } else {
            [q, r, t, k, m, x] = [q * k, (2n * q + r) * x, t * x, k + 1n, (q * (7n * k + 2n) + r * x) / (t * x), x + 2n];
        }
    }
    return crypto.createHash("sha256").update(text).digest("hex");
}

function shapes(count) { // optimized for numbers, then thrown back by what is none
    const add = (a, b) => a.v + b.v;
    let hash = 0;
    for (let i = 0; i < count; i++) {
        let a = { v: i };
        let b = { v: i % 7 };
        if (i % 5000 === 4999) b = { w: 1, v: 0.5 };
        if (i % 7000 === 6999) a = { v: "x" };
        const sum = add(a, b);
        hash = (Math.imul(hash, 31) + (typeof sum === "string" ? sum.length : Math.floor(sum))) | 0;
    }
    return hash;
}

function generated(count) { // functions that did not exist before
    let total = 0;
    for (let i = 0; i < count; i++) {
        const f = new Function("n", `let s = ${i % 13}; for (let i = 0; i < n; i++) s = (s * 33 + i) % ${10007 + i}; return s;`);
        for (let j = 0; j < 3; j++) total += f(300 + j);
    }
    return total;
}

function wasm(n) { // (func (param i32) (result i32)): 1 for n < 2, else f(n - 1) + f(n - 2)
    const code = Buffer.from("0061736d01000000" + "0106" + "0160017f017f" + "03020100" + "0705" + "0101660000" + // type, function, export
        "0a1e" + "011c00" + "2000410248" + "047f4101" + "05" + "20004101" + "6b1000" + "20004102" + "6b1000" + "6a0b0b", "hex");
    return new WebAssembly.Instance(new WebAssembly.Module(code)).exports.f(n);
}

function patterns(count) { // regular expressions compiled to machine code
    let matched = 0;
    for (let i = 0; i < count; i++) {
        const pattern = new RegExp(`^(a{${i % 9}}|b+)(?=c${i % 4})(c\\d)(?:x|y${i})*$`);
        for (let j = 0; j < 60; j++) {
            if (pattern.test(`${j % 2 ? "a".repeat(j % 9) : "bb"}c${j % 4}${j % 3 ? "x" : `y${i}`}`)) matched++;
        }
    }
    return matched;
}

function trees(depth) { // garbage, and what survives it
    const grow = (d) => (d === 0 ? { l: null, r: null } : { l: grow(d - 1), r: grow(d - 1) });
    const nodes = (tree) => (tree.l ? 1 + nodes(tree.l) + nodes(tree.r) : 1);
    const kept = grow(depth);
    let total = 0;
    for (let i = 0; i < 16; i++) total += nodes(grow(depth));
    return total + nodes(kept);
}

const WORKERS = 3;
const ROUNDS = 20000;

function count(shared) { // one of the threads that add to the same cells
    const cells = new Int32Array(shared);
    for (let i = 0; i < ROUNDS; i++) {
        Atomics.add(cells, 0, 1);
        while (Atomics.compareExchange(cells, 1, 0, 1) !== 0) Atomics.wait(cells, 1, 1);
        cells[2] += i % 5; // under the lock of cell 1
        Atomics.store(cells, 1, 0);
        Atomics.notify(cells, 1, 1);
    }
    return primes(300000);
}

async function threads() {
    const shared = new SharedArrayBuffer(16);
    const ends = [];
    for (let i = 0; i < WORKERS; i++) {
        const worker = new Worker(__filename, { workerData: shared });
        ends.push(new Promise((resolve, reject) => worker.on("message", resolve).on("error", reject)));
    }
    const sums = await Promise.all(ends);
    const cells = new Int32Array(shared);
    return `${cells[0]} ${cells[2]} ${sums.join(" ")}`;
}

async function main() {
    answer("primes", primes(5000000));
    answer("pi", pi(500));
    answer("shapes", shapes(3000000));
    answer("generated", generated(1500));
    answer("wasm", wasm(27));
    answer("patterns", patterns(400));
    answer("trees", trees(14));
    answer("threads", await threads());
}

if (isMainThread) main();
else require("worker_threads").parentPort.postMessage(count(workerData));
