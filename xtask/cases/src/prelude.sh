# Functions for the scripts of guest tests.

# Prints the command that failed, in a function or outside.
trap '[ $? = 0 ] || echo "failed at line $LINENO: $(sed -n "${LINENO}p" "$0")"' EXIT

# Keeps a tree with all kinds of entries (its size in MiB) and a blob, and reports their hashes for all later kernels.
keep_tree_and_blob() {
	kho-guest make-tree /srv/tree --bytes $(($1 << 20)) --seed 1
	kho-guest hash-tree /srv/tree --same tree
	kho-guest bytes 3000001 --seed 2 >/tmp/blob
	kho-guest hash --same blob </tmp/blob
	kho keep /srv/tree
	kho keep --name blob - </tmp/blob
	rm /tmp/blob
}

# Overwrites all free memory, then checks that the tree and the blob arrived unchanged.
check_tree_and_blob() {
	kho-guest ranges --at-least 1
	kho-guest fill
	kho restore
	kho-guest hash-tree /srv/tree --same tree
	kho get blob | kho-guest hash --same blob
}

# fails COMMAND…: COMMAND must fail. (A line `! COMMAND` would prove nothing: `sh -e` goes on after it.)
fails() {
	if "$@" 2>/tmp/fails; then
		echo "did not fail: $*"
		return 1
	fi
}

# refused WORDS COMMAND…: COMMAND must fail and print WORDS on standard error.
refused() {
	words=$1
	shift
	if "$@" >/tmp/refused 2>&1; then
		echo "not refused: $*"
		return 1
	fi
	cat /tmp/refused
	grep -q -e "$words" /tmp/refused || {
		echo "does not say $words: $*"
		return 1
	}
}

# within_a_minute COMMAND…: repeats COMMAND until it succeeds, for at most a minute, because the machine may be busy.
within_a_minute() {
	deadline=$(($(cut -d . -f 1 /proc/uptime) + 60))
	until "$@"; do
		[ "$(cut -d . -f 1 /proc/uptime)" -lt $deadline ] || {
			echo "not within a minute: $*"
			return 1
		}
		sleep 0.2
	done
}

# Makes the programs of /media/root usable, with their libraries and data.
foreign() {
	mkdir -p /lib /usr/lib
	for name in lib/x86_64-linux-gnu lib64 share; do
		[ ! -e "/media/root/usr/$name" ] || ln -s "/media/root/usr/$name" "/usr/$name"
	done
	[ ! -e /usr/lib64 ] || ln -s usr/lib64 /lib64
	[ ! -e /usr/lib/x86_64-linux-gnu ] || ln -s ../usr/lib/x86_64-linux-gnu /lib/x86_64-linux-gnu
	PATH=$PATH:/media/root/usr/bin:/media/root/usr/sbin
}

POISONED=19
RESERVED=32
# has ADDRESS BIT: whether /proc/kpageflags has this bit for the page.
has() {
	flags=$(dd if=/proc/kpageflags bs=8 skip=$(($1 / 4096)) count=1 2>/dev/null | od -An -t x8 | tr -d ' ')
	[ $((0x$flags >> $2 & 1)) = 1 ]
}

# pages_of: the address of each page of the ranges "START LAST", in hexadecimal, on standard input.
pages_of() {
	while read -r at last; do
		at=$((0x$at))
		while [ $at -lt $((0x$last)) ]; do
			echo $at
			at=$((at + 4096))
		done
	done
}

# unusable FILE: the pages at these addresses failed under an earlier kernel, and this kernel does not use them. Checks
# the map that the kernel got, the map that it made of it, and each page.
unusable() {
	for entry in /sys/firmware/memmap/*; do
		[ "$(cat $entry/type)" != 'Unusable memory' ] || echo "$(cat $entry/start) $(cat $entry/end)"
	done | sed 's/0x//g' >/tmp/unusable
	pages_of </tmp/unusable >/tmp/memmap
	sed -n 's/^\([0-9a-f]*\)-\([0-9a-f]*\) : Unusable memory$/\1 \2/p' /proc/iomem | pages_of >/tmp/iomem
	while read -r bad; do
		grep -q -x $bad /tmp/memmap
		grep -q -x $bad /tmp/iomem
		has $bad $RESERVED
	done <$1
	echo "$(wc -l <$1) pages are unusable, in $(wc -l </tmp/unusable) ranges, $(ls /sys/firmware/memmap | wc -l) entries"
}

# Loads the next kernel with the same options as PID 1 uses if the script does not load it.
load() {
	kho load "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE" --enter "${enter:-bzimage}" "$@"
}

# Loads the next kernel, if there is one, to be entered directly and not by its decompressor.
directly() {
	if [ "$KHO_NEXT" ]; then
		enter=kernel
		load
		kho-guest loaded
	fi
}

# The address of the kernel's text.
text() {
	awk '$3 == "_text" { print $1; exit }' /proc/kallsyms
}

# seconds SINCE NAME: reports the time since SINCE, an output of kho-guest boottime.
seconds() {
	echo "$1 $(kho-guest boottime)" | awk '{ print $2 - $1 }' | kho-guest report "$2"
}
