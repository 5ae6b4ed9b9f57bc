#!/bin/bash
# A command line that was copied from a kernel that kho started has rdinit=/.kho/arrive. With this program an initrd
# that kho did not load boots with that command line as if it had no rdinit=.

check() {
	require_binaries kho || return 1
	return 0
}

depends() {
	return 0
}

# shellcheck disable=SC2154 # dracut sets initdir
install() {
	kho initrd "$initdir"
}
