package bssl.tf;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * What {@code manifest.json} of a bundle says, as far as running it needs that; {@code
 * deploy/bssl_tf_deploy/manifest.py} documents all of it. What is not read here (parity, training and so on) only has
 * to be there.
 */
final class Manifest {
    static final int FORMAT = 4;

    private static final String CHECKSUM = "content_sha256";
    private static final String EDITED = "edited";
    private static final long MAX_FILE_BYTES = 1 << 30;
    private static final List<String> FINAL_OUTPUTS = Arrays.asList("boxes", "classes", "scores", "count");
    private static final int LARGEST_STRIDE = 128;
    private static final int MAX_BOXES = 1000;

    String task;
    final Map<String, FileEntry> files = new HashMap<>();
    final List<TensorSignature> inputs = new ArrayList<>();
    final List<TensorSignature> outputs = new ArrayList<>();
    final Pixels preprocessing = new Pixels();
    String[] labels;
    /** Of classification: scores are softmax(logits / temperature). */
    double temperature = 1;
    /** Of detection. */
    int[] strides;
    double minScore;
    double maxOverlap;
    int maxBoxes;

    /** A file's SHA-256 in lower-case hexadecimal, and its size in bytes. */
    static final class FileEntry {
        String sha256;
        int bytes;
    }

    /** How pixels become input: (pixel / 255 - mean) / std. */
    static final class Pixels {
        int height;
        int width;
        int channels;
        float[] mean;
        float[] std;
    }

    /** How int8 stands for real numbers: (number - zeroPoint) * scale. */
    static final class Quantization {
        float scale;
        int zeroPoint;

        byte integer(float value) {
            float number = (float) Math.rint(value / scale) + zeroPoint;
            return (byte) Math.max(-128, Math.min(127, number));
        }

        float real(byte number) {
            return ((float) number - zeroPoint) * scale;
        }
    }

    /** A tensor's name, its shape (batch size 1) and its type; {@code quantization} is null unless that is int8. */
    static final class TensorSignature {
        String name;
        int[] shape;
        String dtype;
        Quantization quantization;

        int count() {
            int count = 1;
            for (int side : shape) {
                count *= side;
            }
            return count;
        }
    }

    /** Whether the network sees all of a picture with grey around it, and not the central part. */
    boolean letterbox() {
        return task.equals("detection");
    }

    /** Whether a detector ends in TFLite's operator, and not in maps. */
    boolean finalBoxes() {
        if (outputs.size() != FINAL_OUTPUTS.size()) {
            return false;
        }
        for (int i = 0; i < outputs.size(); i++) {
            if (!outputs.get(i).name.equals(FINAL_OUTPUTS.get(i))) {
                return false;
            }
        }
        return true;
    }

    /** The place of an output in the model's order. */
    int output(String name) {
        for (int i = 0; i < outputs.size(); i++) {
            if (outputs.get(i).name.equals(name)) {
                return i;
            }
        }
        throw new AssertionError(name);
    }

    /**
     * Reads a manifest.
     *
     * @throws Json.Fault it is damaged, or of another format
     */
    static Manifest parse(byte[] json) throws Json.Fault {
        Object content = Json.parse(json);
        checkSum(Strict.any(content, "manifest"));
        Manifest made = new Manifest();
        made.read(Strict.of(content, "manifest", CHECKSUM, "format", "task", "target", "commit", "created_by", "files",
                "inputs", "outputs", "preprocessing", "operators", "binary", "parity", "network", "training", "table"));
        return made;
    }

    private static void checkSum(Strict content) throws Json.Fault {
        Object format = content.get("format");
        if (!(format instanceof Json.Number) || !((Json.Number) format).text.equals(String.valueOf(FORMAT))) {
            String given = format instanceof Json.Number ? ((Json.Number) format).text : "an unknown one";
            throw new Json.Fault("its format is " + given + ", and this version of bssl-tf reads format " + FORMAT);
        }
        Object stated = content.get(CHECKSUM);
        Map<String, Object> rest = new LinkedHashMap<>();
        for (String key : content.keys()) {
            if (!key.equals(CHECKSUM)) {
                rest.put(key, content.get(key));
            }
        }
        byte[] plain = Json.canonical(rest).getBytes(StandardCharsets.US_ASCII);
        if (!EDITED.equals(stated) && !Hashes.sha256(plain).equals(stated)) {
            throw new Json.Fault(stated == null ? "its checksum is missing" : "it was changed since it was written");
        }
    }

    private void read(Strict content) throws Json.Fault {
        task = content.text("task");
        Strict listed = Strict.any(content.get("files"), "files");
        for (String name : listed.keys()) {
            Strict about = Strict.of(listed.get(name), listed.where(name), "sha256", "bytes");
            FileEntry entry = new FileEntry();
            entry.sha256 = about.text("sha256");
            entry.bytes = about.whole("bytes");
            Strict.expect(entry.sha256.matches("[0-9a-f]{64}"), about.where("sha256"), "64 hexadecimal digits");
            Strict.expect(
                    0 <= entry.bytes && entry.bytes <= MAX_FILE_BYTES, about.where("bytes"), "a size from 0 to 1 GiB");
            files.put(name, entry);
        }
        readPixels(content.get("preprocessing"));
        readTensors(content, "inputs", inputs, "float32", "uint8", "int8");
        readTensors(content, "outputs", outputs, "float32", "int8");
        int[] shape = {1, preprocessing.height, preprocessing.width, preprocessing.channels};
        Strict.expect(Arrays.equals(inputs.get(0).shape, shape), "inputs[0].shape", "as in preprocessing");
        if (task.equals("classification")) {
            readClassification(content.get("table"));
        } else if (task.equals("detection")) {
            readDetection(content.get("table"));
        }
    }

    private void readPixels(Object value) throws Json.Fault {
        Strict about = Strict.of(value, "preprocessing", "height", "width", "channels", "mean", "std");
        Pixels p = preprocessing;
        p.height = about.whole("height");
        p.width = about.whole("width");
        p.channels = about.whole("channels");
        p.mean = about.floats("mean");
        p.std = about.floats("std");
        Strict.expect(8 <= p.height && p.height <= 1024, "preprocessing.height", "in 8 to 1024");
        Strict.expect(8 <= p.width && p.width <= 1024, "preprocessing.width", "in 8 to 1024");
        Strict.expect(p.channels == 1 || p.channels == 3, "preprocessing.channels", "1 or 3");
        boolean all = p.mean.length == p.channels && p.std.length == p.channels;
        Strict.expect(all, "preprocessing.mean or .std", "one number for each channel");
        for (float std : p.std) {
            Strict.expect(std > 0 && !Float.isInfinite(std), "preprocessing.std", "above zero");
        }
    }

    private static void readTensors(Strict content, String ends, List<TensorSignature> made, String... dtypes)
            throws Json.Fault {
        List<Object> items = content.list(ends);
        Strict.expect(!items.isEmpty(), ends, "a list of at least one");
        for (int i = 0; i < items.size(); i++) {
            Strict about = Strict.of(items.get(i), ends + "[" + i + "]", "name", "shape", "dtype", "quantization");
            TensorSignature tensor = new TensorSignature();
            tensor.name = about.text("name");
            tensor.shape = about.wholes("shape");
            tensor.dtype = about.text("dtype");
            Strict.expect(Arrays.asList(dtypes).contains(tensor.dtype), about.where("dtype"),
                    "one of " + Arrays.toString(dtypes));
            long count = tensor.shape.length == 0 || tensor.shape[0] != 1 ? 0 : 1;
            for (int side : tensor.shape) {
                count = side > 0 ? Math.min(count * side, MAX_FILE_BYTES) : 0;
            }
            Strict.expect(0 < count && count < MAX_FILE_BYTES, about.where("shape"), "that of a batch of one");
            Object quantization = about.get("quantization");
            Strict.expect(
                    (quantization != null) == tensor.dtype.equals("int8"), about.where("quantization"), "that of int8");
            if (quantization != null) {
                Strict numbers = Strict.of(quantization, about.where("quantization"), "scale", "zero_point");
                Quantization q = new Quantization();
                q.scale = (float) numbers.number("scale");
                q.zeroPoint = numbers.whole("zero_point");
                boolean sound = q.scale > 0 && !Float.isInfinite(q.scale);
                Strict.expect(sound, numbers.where("scale"), "above zero and within float32");
                Strict.expect(-128 <= q.zeroPoint && q.zeroPoint <= 127, numbers.where("zero_point"), "in -128 to 127");
                tensor.quantization = q;
            }
            for (TensorSignature other : made) {
                Strict.expect(!other.name.equals(tensor.name), ends, "a list of different names");
            }
            made.add(tensor);
        }
    }

    private void readClassification(Object value) throws Json.Fault {
        Strict table = Strict.of(value, "table", "labels", "probe", "accuracy", "calibration");
        labels = table.texts("labels");
        Strict.expect(labels.length > 0, "table.labels", "a list of at least one");
        Strict.expect(outputs.size() == 1, "outputs", "a list of one, the logits");
        expectShape(outputs.get(0), 1, labels.length);
        if (table.get("calibration") != null) {
            Strict found = Strict.of(table.get("calibration"), "table.calibration", "temperature", "images", "bins",
                    "ece_percent_before", "ece_percent_after");
            temperature = found.number("temperature");
            Strict.expect(1e-6 <= temperature && temperature <= 1e6, found.where("temperature"), "from 1e-6 to 1e6");
        }
    }

    private void readDetection(Object value) throws Json.Fault {
        Strict table = Strict.of(
                value, "table", "labels", "strides", "frame", "min_score", "max_overlap", "max_boxes", "accuracy");
        labels = table.texts("labels");
        Strict.expect(labels.length > 0, "table.labels", "a list of at least one");
        Strict.expect(table.text("frame").equals("letterbox"), "table.frame", "'letterbox'");
        strides = table.wholes("strides");
        minScore = table.number("min_score");
        maxOverlap = table.number("max_overlap");
        maxBoxes = table.whole("max_boxes");
        Strict.expect(strides.length > 0, "table.strides", "a list of at least one");
        Strict.expect(1e-4 <= minScore && minScore < 1, "table.min_score", "from 0.0001 to below 1");
        Strict.expect(0 <= maxOverlap && maxOverlap <= 1, "table.max_overlap", "from 0 to 1");
        Strict.expect(1 <= maxBoxes && maxBoxes <= MAX_BOXES, "table.max_boxes", "from 1 to " + MAX_BOXES);
        int before = 0;
        for (int stride : strides) {
            Strict.expect(
                    before < stride && stride <= LARGEST_STRIDE, "table.strides", "rising, in 1 to " + LARGEST_STRIDE);
            boolean divides = preprocessing.height % stride == 0 && preprocessing.width % stride == 0;
            Strict.expect(divides, "table.strides", "a divisor of both sides of the input");
            before = stride;
        }
        if (finalBoxes()) {
            expectShape(outputs.get(0), 1, maxBoxes, 4);
            expectShape(outputs.get(1), 1, maxBoxes);
            expectShape(outputs.get(2), 1, maxBoxes);
            expectShape(outputs.get(3), 1);
            return;
        }
        Strict.expect(outputs.size() == 2 * strides.length, "outputs", "two for each stride");
        for (TensorSignature one : outputs) {
            boolean known = false;
            for (int stride : strides) {
                int[] sides = {preprocessing.height / stride, preprocessing.width / stride};
                if (one.name.equals("scores_" + stride)) {
                    expectShape(one, 1, sides[0], sides[1], labels.length);
                    known = true;
                } else if (one.name.equals("boxes_" + stride)) {
                    expectShape(one, 1, sides[0], sides[1], 4);
                    known = true;
                }
            }
            Strict.expect(known, "outputs", "the list of scores and boxes for each stride");
        }
    }

    private static void expectShape(TensorSignature tensor, int... shape) throws Json.Fault {
        Strict.expect(Arrays.equals(tensor.shape, shape), tensor.name + ".shape", Arrays.toString(shape));
    }
}
