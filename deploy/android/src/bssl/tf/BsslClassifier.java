package bssl.tf;

import android.content.res.AssetManager;
import java.util.List;

/**
 * Classifies pictures by a bundle whose task is classification. In Kotlin:
 *
 * <pre>{@code
 * BsslClassifier.fromAssets(assets, "bundle").use { classifier ->
 *     for ((label, score) in classifier.classify(BsslPicture.ofBitmap(bitmap))) println("$label $score")
 * }
 * }</pre>
 *
 * <p>A picture is prepared as it was for training: its largest central part of the input's shape, resized, normalised.
 * Any thread may call it; calls wait for each other.
 */
public final class BsslClassifier implements AutoCloseable {
    private static final int USUAL_LIMIT = 3;
    private static final int USUAL_THREADS = 4;

    private final Network network;

    /**
     * A classifier of a bundle that was read.
     *
     * @param bundle for classification
     * @param numThreads 1 to 64
     * @throws BsslException the bundle is for another task, or the network cannot run here
     */
    public BsslClassifier(BsslBundle bundle, int numThreads) {
        network = new Network(bundle, "classification", numThreads);
    }

    /**
     * A classifier with four threads, of a bundle in an app's assets.
     *
     * @param assets of the app
     * @param folder the bundle's folder in them
     * @return to be closed
     * @throws BsslException see {@link BsslBundle#fromAssets} and the constructor
     */
    public static BsslClassifier fromAssets(AssetManager assets, String folder) {
        return new BsslClassifier(BsslBundle.fromAssets(assets, folder), USUAL_THREADS);
    }

    /**
     * The three best classes of a picture.
     *
     * @param picture of any size
     * @return best first
     */
    public List<ScoredLabel> classify(BsslPicture picture) {
        return classify(picture, USUAL_LIMIT);
    }

    /**
     * The best classes of a picture.
     *
     * @param picture of any size
     * @param limit how many, at least 1; all of them where there are fewer
     * @return best first; of equal ones the first in the bundle's order
     * @throws IllegalStateException it is closed
     */
    public List<ScoredLabel> classify(BsslPicture picture, int limit) {
        List<float[]> outputs = network.run(Preprocessing.prepare(picture, network.manifest).tensor);
        return Answers.classes(outputs.get(0), network.manifest, Math.max(1, limit));
    }

    /** Frees the network; a second time does nothing. */
    @Override
    public void close() {
        network.close();
    }
}
