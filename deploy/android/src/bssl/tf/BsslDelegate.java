package bssl.tf;

import java.util.Collections;
import java.util.Map;
import org.tensorflow.lite.Delegate;

/**
 * Brings the binary operators of a bundle's model, which TensorFlow Lite's interpreter lacks.
 *
 * <p>Add it to {@code Interpreter.Options} before the interpreter is made. It may be shared by several interpreters,
 * and has to live until the last of them is closed: close them first.
 */
public final class BsslDelegate implements Delegate, AutoCloseable {
    private long handle;

    /** As many threads as the interpreter has. */
    public BsslDelegate() {
        this(Collections.<String, String>emptyMap());
    }

    /**
     * A delegate with threads of its own.
     *
     * @param numThreads 1 to 64
     * @throws BsslException another number, or see {@link #BsslDelegate(Map)}
     */
    public BsslDelegate(int numThreads) {
        this(Collections.singletonMap("num_threads", String.valueOf(numThreads)));
    }

    /**
     * A delegate with options.
     *
     * @param options {@code num_threads}, 1 to 64; {@code isa}: {@code auto}, {@code portable} or a set of instructions
     * @throws BsslException an option is wrong, memory is short, or the app has no native library for this processor:
     *     there is one for 64-bit ARM and 64-bit x86
     */
    public BsslDelegate(Map<String, String> options) {
        String[] keys = options.keySet().toArray(new String[0]);
        String[] values = new String[keys.length];
        for (int i = 0; i < keys.length; i++) {
            values[i] = options.get(keys[i]);
        }
        NativeLibrary.load();
        // Filled in by native code where there is no delegate.
        String[] wrong = {"no reason was given"};
        handle = create(keys, values, wrong);
        if (handle == 0) {
            throw BsslException.runtime(
                    "there is no delegate (" + wrong[0] + ")", "Check its options and free memory", null);
        }
    }

    /**
     * TensorFlow Lite's own handle of the delegate.
     *
     * @throws IllegalStateException it is closed
     */
    @Override
    public synchronized long getNativeHandle() {
        if (handle == 0) {
            throw new IllegalStateException("the delegate is closed");
        }
        return handle;
    }

    /** Frees it, once no interpreter has it any more; a second time does nothing. */
    @Override
    public synchronized void close() {
        if (handle != 0) {
            destroy(handle);
            handle = 0;
        }
    }

    /**
     * The native library's version.
     *
     * @return such as {@code 0.1.0}
     * @throws BsslException there is none for this processor
     */
    public static String version() {
        NativeLibrary.load();
        return nativeVersion();
    }

    /**
     * The micro-kernels that this processor can run.
     *
     * @return with commas between them, those in use first
     * @throws BsslException there is no native library for this processor
     */
    public static String kernels() {
        NativeLibrary.load();
        return nativeKernels();
    }

    /** Apart, so that a failure is told anew each time, and not once and then as a class that is not there. */
    private static final class NativeLibrary {
        private static boolean loaded;

        static synchronized void load() {
            if (loaded) {
                return;
            }
            try {
                System.loadLibrary("bssl_tf_jni");
                loaded = true;
            } catch (UnsatisfiedLinkError error) {
                throw BsslException.runtime("the native library cannot be loaded (" + error.getMessage() + ")",
                        "Run the app on a 64-bit system, and keep arm64-v8a and x86_64 in its abiFilters", error);
            }
        }
    }

    /** Zero where there is none; then the reason is in {@code wrong[0]}. */
    private static native long create(String[] keys, String[] values, String[] wrong);

    private static native void destroy(long handle);

    private static native String nativeVersion();

    private static native String nativeKernels();
}
