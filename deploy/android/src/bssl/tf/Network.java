package bssl.tf;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.tensorflow.lite.Interpreter;

/** A bundle's network in TensorFlow Lite's interpreter with our delegate. One thread at a time. */
final class Network implements AutoCloseable {
    final Manifest manifest;

    private final BsslDelegate delegate;
    private final Interpreter interpreter;
    private final Map<Integer, Object> buffers = new HashMap<>();
    private boolean closed;

    Network(BsslBundle bundle, String task, int numThreads) {
        manifest = bundle.manifest;
        if (!manifest.task.equals(task)) {
            throw BsslException.bundle("the bundle is for " + manifest.task + ", not for " + task,
                    "Use the class for its task, or BsslDelegate with an interpreter of your own", null);
        }
        if (manifest.inputs.size() != 1) {
            throw BsslException.bundle("the network takes " + manifest.inputs.size() + " tensors, not an image alone",
                    "Use BsslDelegate with an interpreter of your own", null);
        }
        delegate = new BsslDelegate(numThreads);
        Interpreter made = null;
        try {
            Interpreter.Options options = new Interpreter.Options();
            options.setNumThreads(numThreads);
            options.addDelegate(delegate);
            made = new Interpreter(bundle.model, options);
            checkCounts(made);
        } catch (RuntimeException | Error error) {
            // The interpreter first: it calls the delegate while it goes.
            if (made != null) {
                made.close();
            }
            delegate.close();
            if (error instanceof IllegalArgumentException) {
                throw cannotRun((RuntimeException) error);
            }
            throw error;
        }
        interpreter = made;
        for (int i = 0; i < manifest.outputs.size(); i++) {
            Manifest.TensorSignature about = manifest.outputs.get(i);
            int size = about.quantization == null ? 4 : 1;
            buffers.put(i, ByteBuffer.allocateDirect(size * about.count()).order(ByteOrder.nativeOrder()));
        }
    }

    /** Outputs in the manifest's order, as float32. */
    synchronized List<float[]> run(ByteBuffer input) {
        if (closed) {
            throw new IllegalStateException("it is closed");
        }
        for (Object buffer : buffers.values()) {
            ((ByteBuffer) buffer).rewind();
        }
        try {
            interpreter.runForMultipleInputsOutputs(new Object[] {input}, buffers);
        } catch (IllegalArgumentException error) {
            throw cannotRun(error);
        }
        List<float[]> outputs = new ArrayList<>();
        for (int i = 0; i < manifest.outputs.size(); i++) {
            Manifest.TensorSignature about = manifest.outputs.get(i);
            ByteBuffer buffer = (ByteBuffer) buffers.get(i);
            buffer.rewind();
            float[] values = new float[about.count()];
            for (int k = 0; k < values.length; k++) {
                values[k] = about.quantization == null ? buffer.getFloat() : about.quantization.real(buffer.get());
            }
            outputs.add(values);
        }
        return outputs;
    }

    @Override
    public synchronized void close() {
        if (!closed) {
            closed = true;
            interpreter.close();
            delegate.close();
        }
    }

    /** TensorFlow Lite itself compares the sizes of tensors with those of the buffers. */
    private void checkCounts(Interpreter made) {
        if (made.getInputTensorCount() != 1 || made.getOutputTensorCount() != manifest.outputs.size()) {
            throw new IllegalArgumentException("its inputs and outputs are not those of manifest.json");
        }
    }

    private static BsslException cannotRun(RuntimeException error) {
        return BsslException.runtime("TensorFlow Lite does not run this model (" + error.getMessage() + ")",
                "Export it again, and use the version of TensorFlow Lite that the documentation names", error);
    }
}
