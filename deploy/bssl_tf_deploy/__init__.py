"""What a device needs: read a bundle, prepare an image, classify, time. No TensorFlow, nothing of the host side.

    bundle = read_bundle(Path("bundle-arm64"))
    predictor = Predictor(bundle, interpreter)   # anything with predict([B, S, S, C]) -> [B, K]
    predictor.verify_golden()
    predictor.classify([Path("cat.jpg")])

Of a bundle's format, `manifest` knows the meaning and `bundle` the files.
"""
