# Things that a reader has and a guest lacks: kernels in /boot, and, as the current command line, that of the next
# stage.
mkdir -p /boot /root
cd /root
if [ -n "${KHO_NEXT:-}" ]; then
	ln -sf "$KHO_NEXT_KERNEL" "/boot/vmlinuz-$KHO_NEXT"
	ln -sf "$KHO_NEXT_INITRD" "/boot/initrd.img-$KHO_NEXT"
	echo "$KHO_NEXT_CMDLINE" >/tmp/cmdline
	mount --bind /tmp/cmdline /proc/cmdline
elif [ -e "/media/kernels/$KHO_HOP/bzImage" ]; then
	# A reader has the running kernel in /boot.
	ln -sf "/media/kernels/$KHO_HOP/bzImage" "/boot/vmlinuz-$KHO_KERNEL"
fi

# book PLACE STATUS COMMAND: runs a command of the book, which must exit with STATUS and print the text of
# /tmp/book.wanted.
book() {
	echo "== $1: $3"
	got=0
	eval "$3" >/tmp/book.out 2>&1 </dev/null || got=$?
	cat /tmp/book.out
	[ "$got" = "$2" ] || {
		echo "$1: exit status $got, not $2"
		exit 1
	}
	[ ! -s /tmp/book.wanted ] || kho-guest expect /tmp/book.wanted </tmp/book.out || {
		echo "$1: printed something else"
		exit 1
	}
}
