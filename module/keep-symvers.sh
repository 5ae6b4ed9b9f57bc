#!/bin/sh
# dkms runs this in the build folder after each build. It keeps the files against which drivers of others are built.
# $1: the folder of dkms for this version and kernel.
set -e
mkdir -p "$1/include"
cp out/Module.symvers "$1/"
cp include/kho.h "$1/include/"
