#!/bin/bash
# A command line that was copied from a kernel that kho started has rdinit=/.kho/arrive. With this program an initrd
# that kho did not load boots with that command line as if it had no rdinit=.
# And a locked-down kernel hands over in the initrd of the next one, with a program that moves the content out of it.

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
	# shellcheck disable=SC2154 # dracut sets moddir
	inst_hook pre-udev 00 "$moddir/carry.sh"
}
