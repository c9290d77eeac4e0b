package bssl.tf;

import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/** Reads cases from a file and writes what the library makes of them to another: one start of Java for all of them. */
final class Cases {
    private Cases() {}

    public static void main(String[] files) throws Exception {
        try (DataInputStream in = new DataInputStream(new BufferedInputStream(new FileInputStream(files[0])));
                DataOutputStream out = new DataOutputStream(new BufferedOutputStream(new FileOutputStream(files[1])))) {
            while (true) {
                String kind;
                try {
                    kind = in.readUTF();
                } catch (EOFException end) {
                    return;
                }
                write(out, run(kind, in));
            }
        }
    }

    /** What a case makes, or "!" and the message of its exception. */
    private static byte[] run(String kind, DataInputStream in) throws Exception {
        java.io.ByteArrayOutputStream made = new java.io.ByteArrayOutputStream();
        DataOutputStream out = new DataOutputStream(made);
        // All of a case is read before any of it runs, so that the next one is found.
        DataInputStream given = new DataInputStream(new java.io.ByteArrayInputStream(read(in)));
        try {
            switch (kind) {
                case "prepare":
                    prepare(given, out);
                    break;
                case "answer":
                    answer(given, out);
                    break;
                case "bundle":
                    BsslBundle bundle = BsslBundle.fromFolder(new File(given.readUTF()));
                    out.writeUTF(bundle.getTask() + " " + bundle.getLabels() + " " + bundle.model.remaining());
                    break;
                case "canonical":
                    out.write(Json.canonical(Json.parse(read(given))).getBytes(StandardCharsets.US_ASCII));
                    break;
                case "classify":
                case "detect":
                    network(kind, given, out);
                    break;
                case "delegate":
                    delegate(given, out);
                    break;
                default:
                    throw new AssertionError(kind);
            }
        } catch (BsslException | Json.Fault | IllegalStateException error) {
            return ("!" + error.getMessage()).getBytes(StandardCharsets.UTF_8);
        }
        return made.toByteArray();
    }

    private static void prepare(DataInputStream in, DataOutputStream out) throws Exception {
        Manifest manifest = Manifest.parse(read(in));
        Preprocessing.Prepared prepared = Preprocessing.prepare(picture(in), manifest);
        byte[] bytes = new byte[prepared.tensor.remaining()];
        prepared.tensor.get(bytes);
        write(out, bytes);
        View view = prepared.view;
        for (double number : new double[] {view.left, view.top, view.right, view.bottom, view.width, view.height}) {
            out.writeDouble(number);
        }
    }

    private static BsslPicture picture(DataInputStream in) throws IOException {
        int width = in.readInt();
        int height = in.readInt();
        int rowStride = in.readInt();
        int degrees = in.readInt();
        ByteBuffer bytes = ByteBuffer.wrap(read(in));
        // Without a stride it is what Bitmap.getPixels gives, with one what a camera does.
        if (rowStride > 0) {
            ByteBuffer direct = ByteBuffer.allocateDirect(bytes.remaining() + 5);
            direct.position(5);
            direct.put(bytes);
            direct.position(5);
            return BsslPicture.ofRgba(direct, width, height, rowStride).rotated(degrees);
        }
        int[] argb = new int[bytes.remaining() / 4];
        bytes.order(ByteOrder.BIG_ENDIAN).asIntBuffer().get(argb);
        return BsslPicture.ofArgb(argb, width, height).rotated(degrees);
    }

    private static void answer(DataInputStream in, DataOutputStream out) throws Exception {
        Manifest manifest = Manifest.parse(read(in));
        double[] sides = new double[6];
        for (int i = 0; i < sides.length; i++) {
            sides[i] = in.readDouble();
        }
        int limit = in.readInt();
        List<float[]> outputs = new ArrayList<>();
        for (int count = in.readInt(); count > 0; count--) {
            ByteBuffer bytes = ByteBuffer.wrap(read(in));
            float[] values = new float[bytes.remaining() / 4];
            bytes.asFloatBuffer().get(values);
            outputs.add(values);
        }
        if (manifest.task.equals("classification")) {
            writeLabels(Answers.classes(outputs.get(0), manifest, limit), out);
        } else {
            View view = new View(sides[0], sides[1], sides[2], sides[3], sides[4], sides[5]);
            writeBoxes(Answers.boxes(outputs, manifest, view, limit), out);
        }
    }

    private static void network(String kind, DataInputStream in, DataOutputStream out) throws IOException {
        BsslBundle bundle = BsslBundle.fromFolder(new File(in.readUTF()));
        int threads = in.readInt();
        BsslPicture picture = picture(in);
        if (kind.equals("classify")) {
            try (BsslClassifier classifier = new BsslClassifier(bundle, threads)) {
                writeLabels(classifier.classify(picture, 1000), out);
            }
        } else {
            try (BsslDetector detector = new BsslDetector(bundle, threads)) {
                writeBoxes(detector.detect(picture), out);
            }
        }
    }

    /** A delegate's life, with an option. */
    private static void delegate(DataInputStream in, DataOutputStream out) throws IOException {
        String key = in.readUTF();
        String value = in.readUTF();
        BsslDelegate delegate =
                new BsslDelegate(java.util.Collections.singletonMap(key, value.isEmpty() ? null : value));
        boolean there = delegate.getNativeHandle() != 0;
        delegate.close();
        delegate.close();
        out.writeUTF(there + " " + BsslDelegate.version() + " " + BsslDelegate.kernels());
        out.flush();
        try {
            delegate.getNativeHandle();
        } catch (IllegalStateException closed) {
            out.writeUTF(closed.getMessage());
        }
    }

    private static void writeLabels(List<ScoredLabel> labels, DataOutputStream out) throws IOException {
        for (ScoredLabel one : labels) {
            out.writeUTF(one.component1());
            out.writeFloat(one.component2());
        }
    }

    private static void writeBoxes(List<DetectedBox> boxes, DataOutputStream out) throws IOException {
        for (DetectedBox one : boxes) {
            out.writeUTF(one.getLabel());
            float[] numbers = {one.getScore(), one.getLeft(), one.getTop(), one.getRight(), one.getBottom()};
            for (float number : numbers) {
                out.writeFloat(number);
            }
        }
    }

    private static byte[] read(DataInputStream in) throws IOException {
        byte[] bytes = new byte[in.readInt()];
        in.readFully(bytes);
        return bytes;
    }

    private static void write(DataOutputStream out, byte[] bytes) throws IOException {
        out.writeInt(bytes.length);
        out.write(bytes);
    }
}
