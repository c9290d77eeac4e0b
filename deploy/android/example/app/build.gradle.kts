plugins {
    id("com.android.application")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "bssl.tf.example"
    compileSdk = 35

    defaultConfig {
        applicationId = "bssl.tf.example"
        minSdk = 24
        targetSdk = 35
        versionCode = 1
        versionName = "1.0"
        // There is a runtime for these alone.
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
    }

    buildTypes {
        release {
            // Tries the library's rules; signed with the debug key, as this app goes into no shop.
            isMinifyEnabled = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"))
            signingConfig = signingConfigs.getByName("debug")
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    kotlinOptions { jvmTarget = "17" }
}

dependencies {
    // `make android` in bssl-tf writes it into dist/; copy it to app/libs.
    implementation(fileTree("libs") { include("bssl-tf-*.aar") })
    implementation("org.tensorflow:tensorflow-lite:2.16.1")

    val camerax = "1.4.1"
    implementation("androidx.camera:camera-camera2:$camerax")
    implementation("androidx.camera:camera-lifecycle:$camerax")
    implementation("androidx.camera:camera-view:$camerax")
    implementation("androidx.activity:activity-ktx:1.9.3")
}
