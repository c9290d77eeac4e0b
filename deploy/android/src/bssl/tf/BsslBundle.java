package bssl.tf;

import android.content.res.AssetManager;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;

/**
 * A bundle that {@code bssl-tf export} wrote: a network and what it is to be fed with.
 *
 * <p>An app needs two of its files, {@code manifest.json} and {@code model.tflite}: both are checked against their
 * hashes. The others need not be in the app, and are not read.
 */
public final class BsslBundle {
    private static final String MANIFEST = "manifest.json";
    private static final String MODEL = "model.tflite";
    private static final int MAX_MANIFEST_BYTES = 1 << 24;
    private static final String AGAIN = "Export it again or copy it again";

    final Manifest manifest;
    /** The flatbuffer: direct, at its beginning, in the machine's order of bytes. */
    final ByteBuffer model;

    private BsslBundle(Manifest manifest, ByteBuffer model) {
        this.manifest = manifest;
        this.model = model;
    }

    /**
     * Reads a bundle out of an app's assets.
     *
     * @param assets of the app
     * @param folder the bundle's folder in them, such as {@code bundle}
     * @return the bundle
     * @throws BsslException a file is missing, was changed since it was written, or is of an unknown format
     */
    public static BsslBundle fromAssets(AssetManager assets, String folder) {
        return read(name -> assets.open(folder + "/" + name), "assets/" + folder);
    }

    /**
     * Reads a bundle out of a folder, such as one that an app downloaded.
     *
     * @param folder the bundle
     * @return the bundle
     * @throws BsslException see {@link #fromAssets}
     */
    public static BsslBundle fromFolder(File folder) {
        return read(name -> new FileInputStream(new File(folder, name)), folder.getPath());
    }

    /**
     * Reads a bundle from elsewhere.
     *
     * @param source opens its files
     * @param where what to call it in messages
     * @return the bundle
     * @throws BsslException see {@link #fromAssets}
     */
    public static BsslBundle read(BundleSource source, String where) {
        Manifest manifest;
        try {
            manifest = Manifest.parse(readManifest(source, where));
        } catch (Json.Fault error) {
            throw BsslException.bundle(where + "/" + MANIFEST + " is damaged: " + error.getMessage(), AGAIN, error);
        }
        Manifest.FileEntry entry = manifest.files.get(MODEL);
        if (entry == null) {
            throw BsslException.bundle(where + "/" + MANIFEST + " does not list " + MODEL, AGAIN, null);
        }
        return new BsslBundle(manifest, readModel(source, where + "/" + MODEL, entry));
    }

    /**
     * What the network is for.
     *
     * @return {@code classification}, {@code detection} or another word of the manifest
     */
    public String getTask() {
        return manifest.task;
    }

    /**
     * Names of the classes, in the order of the network's output.
     *
     * @return cannot be changed; empty where the task is neither classification nor detection
     */
    public List<String> getLabels() {
        return Collections.unmodifiableList(Arrays.asList(manifest.labels == null ? new String[0] : manifest.labels));
    }

    private static byte[] readManifest(BundleSource source, String where) {
        try (InputStream file = source.open(MANIFEST)) {
            ByteArrayOutputStream content = new ByteArrayOutputStream();
            byte[] part = new byte[1 << 16];
            for (int count = file.read(part); count >= 0; count = file.read(part)) {
                content.write(part, 0, count);
                if (content.size() > MAX_MANIFEST_BYTES) {
                    throw BsslException.bundle(
                            where + "/" + MANIFEST + " is larger than a manifest can be", AGAIN, null);
                }
            }
            return content.toByteArray();
        } catch (IOException error) {
            throw BsslException.bundle(where + "/" + MANIFEST + " cannot be read (" + error.getMessage() + ")",
                    "Name the folder that `bssl-tf export` wrote", error);
        }
    }

    private static ByteBuffer readModel(BundleSource source, String name, Manifest.FileEntry entry) {
        // Direct, as the interpreter uses it in place.
        ByteBuffer model = ByteBuffer.allocateDirect(entry.bytes).order(ByteOrder.nativeOrder());
        MessageDigest hash = Hashes.sha256();
        try (InputStream file = source.open(MODEL)) {
            byte[] part = new byte[1 << 16];
            for (int count = file.read(part); count >= 0; count = file.read(part)) {
                if (count > model.remaining()) {
                    throw BsslException.bundle(name + " has more than " + entry.bytes + " bytes", AGAIN, null);
                }
                model.put(part, 0, count);
                hash.update(part, 0, count);
            }
        } catch (IOException error) {
            throw BsslException.bundle(name + " cannot be read (" + error.getMessage() + ")", AGAIN, error);
        }
        if (model.hasRemaining()) {
            throw BsslException.bundle(
                    name + " has " + model.position() + " bytes instead of " + entry.bytes, AGAIN, null);
        }
        if (!Hashes.text(hash.digest()).equals(entry.sha256)) {
            throw BsslException.bundle(
                    name + " was changed since the bundle was written (its SHA-256 differs)", AGAIN, null);
        }
        model.rewind();
        return model;
    }
}
