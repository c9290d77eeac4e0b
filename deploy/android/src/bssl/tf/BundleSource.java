package bssl.tf;

import java.io.IOException;
import java.io.InputStream;

/** Where a bundle's files lie: assets, a folder of the app, or whatever else can be read. */
public interface BundleSource {
    /**
     * Opens a file of the bundle.
     *
     * @param name one of the names in {@code manifest.json}, or that name itself
     * @return its content from the beginning; the reader closes it
     * @throws IOException it is not there, or cannot be read
     */
    InputStream open(String name) throws IOException;
}
