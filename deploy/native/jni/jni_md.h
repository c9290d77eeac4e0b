// What a JDK's jni.h asks of a machine, for 64-bit Linux and Android. A JDK has one for its own machine only; its jni.h
// fits all, as the table of functions is fixed by the specification.
#pragma once

#define JNIEXPORT __attribute__((visibility("default")))
#define JNIIMPORT
#define JNICALL

typedef int jint;
typedef long jlong;
typedef signed char jbyte;
