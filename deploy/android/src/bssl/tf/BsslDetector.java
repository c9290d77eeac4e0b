package bssl.tf;

import android.content.res.AssetManager;
import java.util.List;

/**
 * Finds objects on pictures by a bundle whose task is detection. In Kotlin:
 *
 * <pre>{@code
 * BsslDetector.fromAssets(assets, "bundle").use { detector ->
 *     for (box in detector.detect(BsslPicture.ofBitmap(bitmap))) println("${box.label} ${box.score} at ${box.left}")
 * }
 * }</pre>
 *
 * <p>A picture is prepared as it was for training: whole, in its true shape, grey around it. Any thread may call it;
 * calls wait for each other.
 */
public final class BsslDetector implements AutoCloseable {
    private static final int USUAL_LIMIT = 100;
    private static final int USUAL_THREADS = 4;

    private final Network network;

    /**
     * A detector of a bundle that was read.
     *
     * @param bundle for detection
     * @param numThreads 1 to 64
     * @throws BsslException the bundle is for another task, or the network cannot run here
     */
    public BsslDetector(BsslBundle bundle, int numThreads) {
        network = new Network(bundle, "detection", numThreads);
    }

    /**
     * A detector with four threads, of a bundle in an app's assets.
     *
     * @param assets of the app
     * @param folder the bundle's folder in them
     * @return to be closed
     * @throws BsslException see {@link BsslBundle#fromAssets} and the constructor
     */
    public static BsslDetector fromAssets(AssetManager assets, String folder) {
        return new BsslDetector(BsslBundle.fromAssets(assets, folder), USUAL_THREADS);
    }

    /**
     * The objects on a picture, at most 100.
     *
     * @param picture of any size
     * @return best first; may be empty
     */
    public List<DetectedBox> detect(BsslPicture picture) {
        return detect(picture, USUAL_LIMIT);
    }

    /**
     * The objects on a picture.
     *
     * @param picture of any size
     * @param limit how many at most, at least 1; the bundle has a limit of its own, and the least score of a box
     * @return best first; may be empty
     * @throws IllegalStateException it is closed
     */
    public List<DetectedBox> detect(BsslPicture picture, int limit) {
        Preprocessing.Prepared prepared = Preprocessing.prepare(picture, network.manifest);
        List<float[]> outputs = network.run(prepared.tensor);
        return Answers.boxes(outputs, network.manifest, prepared.view, Math.max(1, limit));
    }

    /** Frees the network; a second time does nothing. */
    @Override
    public void close() {
        network.close();
    }
}
