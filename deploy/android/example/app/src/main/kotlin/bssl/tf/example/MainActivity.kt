package bssl.tf.example

import android.Manifest
import android.content.pm.PackageManager
import android.os.Bundle
import android.widget.TextView
import androidx.activity.ComponentActivity
import androidx.activity.result.contract.ActivityResultContracts
import androidx.camera.core.CameraSelector
import androidx.camera.core.ImageAnalysis
import androidx.camera.core.ImageProxy
import androidx.camera.core.Preview
import androidx.camera.lifecycle.ProcessCameraProvider
import androidx.camera.view.PreviewView
import androidx.core.content.ContextCompat
import bssl.tf.BsslBundle
import bssl.tf.BsslClassifier
import bssl.tf.BsslDelegate
import bssl.tf.BsslDetector
import bssl.tf.BsslException
import bssl.tf.BsslPicture
import java.util.concurrent.ExecutorService
import java.util.concurrent.Executors

/** One screen: what the camera sees, and what the bundle in assets/bundle makes of it. */
class MainActivity : ComponentActivity() {
    // One thread makes, runs and closes the network, so that nothing is closed while it runs.
    private val worker: ExecutorService = Executors.newSingleThreadExecutor()
    private lateinit var answers: TextView
    private var network: AutoCloseable? = null
    private var answer: (BsslPicture) -> String = { "" }

    private val permission = registerForActivityResult(ActivityResultContracts.RequestPermission()) { granted ->
        if (granted) startCamera() else answers.setText(R.string.no_camera)
    }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.activity_main)
        answers = findViewById(R.id.answers)
        worker.execute {
            try {
                open(BsslBundle.fromAssets(assets, "bundle"))
            } catch (error: BsslException) {
                show(error.message.orEmpty())
            }
        }
        val state = ContextCompat.checkSelfPermission(this, Manifest.permission.CAMERA)
        if (state == PackageManager.PERMISSION_GRANTED) startCamera() else permission.launch(Manifest.permission.CAMERA)
    }

    override fun onDestroy() {
        super.onDestroy()
        worker.execute { network?.close() }
        worker.shutdown()
    }

    private fun open(bundle: BsslBundle) {
        if (bundle.task == "detection") {
            val detector = BsslDetector(bundle, THREADS)
            network = detector
            answer = { picture -> detector.detect(picture, SHOWN).joinToString("\n") }
        } else {
            val classifier = BsslClassifier(bundle, THREADS)
            network = classifier
            answer = { picture -> classifier.classify(picture, SHOWN).joinToString("\n") }
        }
    }

    private fun startCamera() {
        val future = ProcessCameraProvider.getInstance(this)
        future.addListener({
            val preview = Preview.Builder().build()
            preview.surfaceProvider = findViewById<PreviewView>(R.id.preview).surfaceProvider
            val analysis = ImageAnalysis.Builder()
                .setOutputImageFormat(ImageAnalysis.OUTPUT_IMAGE_FORMAT_RGBA_8888)
                .setBackpressureStrategy(ImageAnalysis.STRATEGY_KEEP_ONLY_LATEST)
                .build()
            analysis.setAnalyzer(worker, ::analyse)
            val provider = future.get()
            provider.unbindAll()
            provider.bindToLifecycle(this, CameraSelector.DEFAULT_BACK_CAMERA, preview, analysis)
        }, ContextCompat.getMainExecutor(this))
    }

    private fun analyse(image: ImageProxy) = image.use {
        if (network == null) return@use
        val plane = image.planes[0]
        val picture = BsslPicture.ofRgba(plane.buffer, image.width, image.height, plane.rowStride)
            .rotated(image.imageInfo.rotationDegrees)
        val begin = System.nanoTime()
        val text = try {
            answer(picture)
        } catch (error: BsslException) {
            error.message.orEmpty()
        }
        val milliseconds = (System.nanoTime() - begin) / 1e6
        val kernel = BsslDelegate.kernels().substringBefore(',')
        show("$text\n${"%.1f".format(milliseconds)} ms  $kernel")
    }

    private fun show(text: String) = runOnUiThread { answers.text = text }

    private companion object {
        const val THREADS = 4
        const val SHOWN = 3
    }
}
