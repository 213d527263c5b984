import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.LongAdder;
import java.util.function.LongUnaryOperator;
import java.util.stream.IntStream;
import java.util.zip.CRC32;

/**
 * Work for a JVM's compilers, collector, threads, and the signals it makes its checks from.
 * Each line it prints is an answer that the test knows. Run from source, so that javac is part of the work.
 */
class Compute {
    static void answer(String name, Object value) {
        System.out.println(name + " " + value);
    }

    static int primes(int limit) {
        boolean[] composite = new boolean[limit + 1];
        int count = 0;
        for (int i = 2; i <= limit; i++) {
            if (composite[i]) continue;
            count++;
            for (long j = (long) i * i; j <= limit; j += i) composite[(int) j] = true;
        }
        return count;
    }

    static String hashes(int length) throws Exception { // by the JVM's own intrinsics
        byte[] data = new byte[length];
        for (int i = 0; i < length; i++) data[i] = (byte) (i * 7);
        CRC32 crc = new CRC32();
        crc.update(data);
        return Long.toHexString(crc.getValue()) + " "
            + HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data));
    }

    static int length(Object o) {
        return ((String) o).length();
    }

    static int depth(int n) {
        return 1 + depth(n + 1);
    }

    /** Null, zero, bounds, casts and the stack's end: SIGSEGV and SIGFPE in compiled code, guard pages, deoptimization. */
    static String checks(int rounds) {
        int nulls = 0, zeros = 0, bounds = 0, casts = 0, stacks = 0, sum = 0;
        int[] array = new int[16];
        for (int i = 0; i < rounds; i++) {
            try {
                sum += 1000 / (i % 100);
                sum += array[i % 17]++;
                sum += length(i % 50 == 7 ? null : i % 70 == 9 ? (Object) i : "four");
            } catch (ArithmeticException e) {
                zeros++;
            } catch (ArrayIndexOutOfBoundsException e) {
                bounds++;
            } catch (NullPointerException e) {
                nulls++;
            } catch (ClassCastException e) {
                casts++;
            }
            if (i % 20000 == 0) {
                try {
                    depth(0);
                } catch (StackOverflowError e) {
                    stacks++;
                }
            }
        }
        return nulls + " " + zeros + " " + bounds + " " + casts + " " + stacks + " " + sum;
    }

    /** Lambdas are classes spun while the program runs; each makes the call site less predictable. */
    static long generated(int rounds) {
        List<LongUnaryOperator> list = new ArrayList<>();
        long total = 0;
        list.add(x -> x + 1);
        list.add(x -> x * 3);
        list.add(x -> x ^ (x >>> 7));
        list.add(Long::reverse);
        list.add(Long::bitCount);
        for (int i = 0; i < rounds; i++) {
            for (int j = 0; j <= i * list.size() / rounds; j++) total = total * 31 + list.get(j).applyAsLong(total + i);
        }
        return total;
    }

    record Tree(Tree left, Tree right) {
        static Tree grow(int depth) {
            return depth == 0 ? new Tree(null, null) : new Tree(grow(depth - 1), grow(depth - 1));
        }

        int nodes() {
            return left == null ? 1 : 1 + left.nodes() + right.nodes();
        }
    }

    static long trees(int depth) { // garbage, and what survives it
        Tree kept = Tree.grow(depth);
        long total = 0;
        for (int i = 0; i < 30; i++) total += Tree.grow(depth).nodes();
        System.gc();
        return total + kept.nodes();
    }

    static int shared;

    static String threads(int count, int rounds) throws Exception {
        var pool = Executors.newFixedThreadPool(count);
        var lock = new Object();
        var adder = new LongAdder();
        var map = new ConcurrentHashMap<Integer, Integer>();
        List<Callable<Integer>> tasks = new ArrayList<>();
        for (int t = 0; t < count; t++) {
            tasks.add(() -> {
                int found = 0;
                for (int i = 0; i < rounds; i++) {
                    synchronized (lock) {
                        shared += i % 3;
                    }
                    adder.increment();
                    map.merge(i % 97, 1, Integer::sum);
                    if (i % 4000 == 0) found = primes(20000); // allocates while others hold locks
                }
                return found;
            });
        }
        int found = 0;
        for (var future : pool.invokeAll(tasks)) found += future.get();
        pool.shutdown();
        long streamed = IntStream.range(0, 500000).parallel().mapToLong(i -> (long) i * i % 1009).sum();
        return shared + " " + adder.sum() + " " + map.get(96) + " " + found + " " + streamed;
    }

    static String text(int rounds) { // vectorized string code, and floating point
        StringBuilder builder = new StringBuilder();
        double x = 0.5;
        for (int i = 0; i < rounds; i++) {
            x = 3.75 * x * (1 - x);
            builder.append(i).append(i % 3 == 0 ? "\u00fc" : "u").append(Float.toString((float) x));
        }
        String text = builder.toString();
        return text.getBytes(StandardCharsets.UTF_8).length + " " + text.hashCode() + " " + text.indexOf("9998u") + " " + x;
    }

    public static void main(String[] args) throws Exception {
        answer("primes", primes(5000000));
        answer("hashes", hashes(3000000));
        answer("checks", checks(400000));
        answer("generated", generated(1000000));
        answer("trees", trees(15));
        answer("threads", threads(4, 20000));
        answer("text", text(100000));
    }
}
