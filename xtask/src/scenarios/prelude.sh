# Functions for the scripts of guest tests.

# Which command it was that failed, in a function or outside.
trap '[ $? = 0 ] || echo "failed at line $LINENO: $(sed -n "${LINENO}p" "$0")"' EXIT

# Keeps a tree of all kinds of entries (in MiB) and a blob, and tells the host what they must look like for ever.
keep_tree_and_blob() {
	kho-guest make-tree /srv/tree --bytes $(($1 << 20)) --seed 1
	kho-guest hash-tree /srv/tree --same tree
	kho-guest bytes 3000001 --seed 2 >/tmp/blob
	kho-guest hash --same blob </tmp/blob
	kho keep /srv/tree
	kho keep --name blob - </tmp/blob
	rm /tmp/blob
}

# Overwrites all free memory, then checks that everything arrived as it was.
check_tree_and_blob() {
	kho-guest ranges --at-least 1
	kho-guest fill
	kho restore
	kho-guest hash-tree /srv/tree --same tree
	kho get blob | kho-guest hash --same blob
}

# fails COMMAND…: it must. (A line `! COMMAND` would prove nothing: `sh -e` goes on behind it.)
fails() {
	if "$@" 2>/tmp/fails; then
		echo "did not fail: $*"
		return 1
	fi
}

# refused WORDS COMMAND…: the command must fail and say WORDS on standard error.
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

# Waits until a command succeeds: at most a minute, for a machine that is busy with others. within_a_minute COMMAND…
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

# Loads the next kernel, as it is loaded when a script does not do it itself.
load() {
	kho load "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE" "$@"
}

# seconds SINCE NAME: reports what passed since that time of kho-guest boottime.
seconds() {
	echo "$1 $(kho-guest boottime)" | awk '{ print $2 - $1 }' | kho-guest report "$2"
}
