package org.tensorflow.lite;

import java.nio.ByteBuffer;
import java.util.Map;

/** What the library calls of TensorFlow Lite's class, to compile against; never packed. */
public final class Interpreter implements AutoCloseable {
    public Interpreter(ByteBuffer model, Options options) {
        throw new UnsupportedOperationException();
    }

    public int getInputTensorCount() {
        throw new UnsupportedOperationException();
    }

    public int getOutputTensorCount() {
        throw new UnsupportedOperationException();
    }

    public void runForMultipleInputsOutputs(Object[] inputs, Map<Integer, Object> outputs) {
        throw new UnsupportedOperationException();
    }

    @Override
    public void close() {}

    public static class Options {
        public Options setNumThreads(int count) {
            throw new UnsupportedOperationException();
        }

        public Options addDelegate(Delegate delegate) {
            throw new UnsupportedOperationException();
        }
    }
}
