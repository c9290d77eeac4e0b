package org.tensorflow.lite;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** TensorFlow Lite's interpreter as its C library has it, with what the library for Android calls of Java's. */
public final class Interpreter implements AutoCloseable {
    static {
        System.loadLibrary("test_interpreter");
    }

    private final ByteBuffer model;
    private final List<Delegate> delegates;
    private long handle;

    public Interpreter(ByteBuffer model, Options options) {
        if (!model.isDirect() || model.order() != ByteOrder.nativeOrder()) {
            throw new IllegalArgumentException("a model is a direct buffer in the machine's order");
        }
        this.model = model;
        delegates = new ArrayList<>(options.delegates);
        long[] handles = new long[delegates.size()];
        for (int i = 0; i < handles.length; i++) {
            handles[i] = delegates.get(i).getNativeHandle();
        }
        handle = make(model, options.threads, handles);
        if (handle == 0) {
            throw new IllegalArgumentException("the interpreter cannot be made");
        }
    }

    public int getInputTensorCount() {
        return inputs(handle);
    }

    public int getOutputTensorCount() {
        return outputs(handle);
    }

    public void runForMultipleInputsOutputs(Object[] inputs, Map<Integer, Object> outputs) {
        for (int i = 0; i < inputs.length; i++) {
            if (!setInput(handle, i, (ByteBuffer) inputs[i])) {
                throw new IllegalArgumentException("input " + i + " does not fit");
            }
        }
        if (!invoke(handle)) {
            throw new IllegalArgumentException("the interpreter cannot be run");
        }
        for (Map.Entry<Integer, Object> output : outputs.entrySet()) {
            if (!getOutput(handle, output.getKey(), (ByteBuffer) output.getValue())) {
                throw new IllegalArgumentException("output " + output.getKey() + " does not fit");
            }
        }
    }

    @Override
    public void close() {
        if (handle == 0) {
            throw new AssertionError("closed twice");
        }
        for (Delegate delegate : delegates) {
            // Throws where it was closed before the interpreter, which still calls it.
            delegate.getNativeHandle();
        }
        delete(handle);
        handle = 0;
    }

    public static class Options {
        private final List<Delegate> delegates = new ArrayList<>();
        private int threads = 1;

        public Options setNumThreads(int count) {
            threads = count;
            return this;
        }

        public Options addDelegate(Delegate delegate) {
            delegates.add(delegate);
            return this;
        }
    }

    private static native long make(ByteBuffer model, int threads, long[] delegates);

    private static native int inputs(long handle);

    private static native int outputs(long handle);

    private static native boolean setInput(long handle, int index, ByteBuffer content);

    private static native boolean invoke(long handle);

    private static native boolean getOutput(long handle, int index, ByteBuffer content);

    private static native void delete(long handle);
}
