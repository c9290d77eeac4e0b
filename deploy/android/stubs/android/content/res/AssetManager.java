package android.content.res;

import java.io.IOException;
import java.io.InputStream;

/** What the library calls of Android's class, to compile against; never packed. */
public class AssetManager {
    public InputStream open(String name) throws IOException {
        throw new UnsupportedOperationException(name);
    }
}
