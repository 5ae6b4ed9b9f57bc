# Each kernel but the last loads the next one late, works on, and starts it in another way.
sys=/sys/kernel/kho

late_is() {
	cat $sys/late
	grep -q "^state $1\$" $sys/late
	[ "$(cat $sys/active)" = 0 ]
}

# Creates, grows, overwrites and removes files.
work() {
	kho-guest bytes 3000000 --seed $((KHO_HOP + 20)) >/k/new-$1
	kho-guest bytes 5000000 --seed $((KHO_HOP + 30)) >>/k/grows
	kho-guest bytes 4096 --seed $((KHO_HOP + 40)) | dd of=/k/grows conv=notrunc bs=4096 seek=3
	rm /k/goes
	mkdir /k/dir-$1
	mv /k/moves /k/dir-$1/moves
	ln -s dir-$1/moves /k/moves
	kho-guest bytes 1000000 --seed $((KHO_HOP + 50)) >/k/goes
}

if [ $KHO_HOP = 0 ]; then
	mount_khofs /k name=vm,size=90%
	kho-guest make-tree /k/tree --bytes $((4 << 20)) --seed 1 --user-xattrs
	kho-guest bytes 4000000 --seed 1 >/k/grows
	kho-guest bytes 2000000 --seed 2 >/k/goes
	kho-guest bytes 2000000 --seed 3 >/k/moves
	echo hello | kho keep --name greeting -
	kho-guest bytes 6000000 --seed 4 >/srv-file
	kho keep /srv-file
	refused 'drivers and khofs keep memory in place, which the initrd cannot carry' \
		kho load --carrier initrd "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
else
	if [ $KHO_HOP = 1 ]; then
		[ "$(cat /proc/sys/vm/nr_hugepages)" = 250 ]
		echo 0 >/proc/sys/vm/nr_hugepages
	fi
	kho-guest fill
	mount_khofs /k name=vm
	kho-guest fill
	kho-guest hash-tree /k --same tree-$((KHO_HOP - 1))
	[ "$(kho get greeting)" = hello ]
	kho get 'srv\x2dfile' >/dev/null
	rm -rf /k/new-* /k/full /k/empty
	[ -e /k/moves ]
	cat /k/dir-*/moves >/k/moved
	rm -r /k/dir-* /k/moves
	mv /k/moved /k/moves
fi
cat $sys/status
[ -n "$KHO_NEXT" ] || exit 0

load --late
late_is armed
work one
case $KHO_HOP in
0)
	kho-guest hash-tree /k --same once
	# A driver that fails at the start: nothing has happened.
	insmod /lib/modules/$KHO_RELEASE/updates/kho_test.ko pages=20
	echo 5 >/sys/module/kho_test/parameters/fail
	refused 'the producer test-fail failed' kho exec
	late_is armed
	rmmod kho_test
	# An active phase, and its abort.
	echo 1 >$sys/active
	[ "$(wc -c <$sys/dt)" -gt 100 ]
	echo 0 >$sys/active
	late_is armed
	# A publication, and its abort: as after a jump that failed.
	echo publish >$sys/late
	grep -q '^state published$' $sys/late
	echo 0 >$sys/active
	late_is armed
	kho-guest hash-tree /k --same once
	# A second load, and one that is complete: then there is nothing to do before the jump.
	load --late
	late_is armed
	load
	grep -q '^state idle$' $sys/late
	[ "$(cat $sys/active)" = 1 ]
	load --late
	late_is armed
	kho unload
	late_is idle
	load --late
	# The image is that of the load, and the module was told of another.
	echo disarm >$sys/late
	refused 'kho.ko does not complete this load' kho exec
	# The next kernel needs 500 MiB besides.
	kho load --late "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE hugepages=250"
	rm -r /k/dir-one/moves /k/new-one
	kho-guest bytes 7000000 --seed 60 >/k/new-two
	kho-guest bytes 100000 --seed 61 >/k/dir-one/moves
	# Files grow as far as the next kernel has room, and what they then hold is handed over.
	refused 'No space' dd if=/dev/zero of=/k/full bs=1M
	ls -l /k/full
	[ "$(stat -f -c %a /k)" -gt 1000 ]
	: >/k/empty
	refused 'No space' cp /k/grows /k/empty
	kho-guest hash-tree /k --same tree-$KHO_HOP
	kho-guest loaded
	;;
1)
	# The image is started without kho exec: the notifier completes it.
	kho-guest hash-tree /k --same tree-$KHO_HOP
	kho-guest loaded --bare
	;;
2)
	# Root begins the active phase.
	kho-guest hash-tree /k --same tree-$KHO_HOP
	kho activate
	[ "$(wc -c <$sys/dt)" -gt 100 ]
	kho-guest loaded
	;;
esac
