# With folios of 2 MiB first, then without them twice, then with them.
modules=/lib/modules/$KHO_RELEASE/updates

# says WHY: khofs has no huge pages, and its file large_folios and kho doctor report WHY.
says() {
	grep "^no: .*$1" /sys/fs/khofs/large_folios
	kho doctor --json >/tmp/doctor || true
	grep '"what": "khofs is loaded, without huge pages: .*'"$1" /tmp/doctor
}

# khofs finds every wrong bit in a folio that it makes. Bit b of word w of struct page p: flags, the first page, counts,
# the order (at its place in 6.1 and in later kernels), the first and second page of a folio in particular, mapping,
# owner.
for wrong in 0.0.0 5.1.6 300.6.32 1.2.9 1.0.1 1.2.3 2.3.8 400.3.0 10.7.0 511.0.2; do
	number=$(echo $wrong | awk -F . '{ print $1 * 512 + $2 * 64 + $3 }')
	insmod $modules/khofs_faults.ko wrong_bit=$number
	cat /sys/fs/khofs/large_folios
	says 'a folio made here differs'
	rmmod khofs
done
insmod $modules/khofs_faults.ko
[ "$(cat /sys/fs/khofs/large_folios)" = yes ]
rmmod khofs

large=
case $KHO_HOP in
1)
	insmod $modules/khofs.ko large_folios=0
	says "switched off by the module's parameter"
	;;
2)
	insmod $modules/khofs_faults.ko wrong_bit=$((512 + 2 * 64 + 3))
	says 'a folio made here differs from one of the kernel.s (first tail page)'
	;;
*)
	insmod $modules/khofs.ko
	large=yes
	;;
esac

[ "$KHO_HOP" = 0 ] || kho-guest fill
mount_khofs /k name=vm
if [ "$KHO_HOP" = 0 ]; then
	mkdir /k/kept
	kho-guest make-tree /k/kept/tree --bytes $((4 << 20)) --seed 1 --user-xattrs
	fallocate -l 6m /k/kept/folios
	kho-guest bytes $((6 << 20)) --seed 2 | dd of=/k/kept/folios bs=1M conv=notrunc 2>/dev/null
	kho-guest bytes 9000001 --seed 3 >/k/kept/tail
	mount -o remount,huge=always /k
	echo x >/k/kept/always
	mount -o remount,huge=advise /k
	kho-guest map cut /k/kept/cut --seed 5
	# For later: mounted while an activation begins.
	mount_khofs /late name=late
	kho-guest make-tree /late/tree --bytes $((4 << 20)) --seed 4
	kho-guest hash-tree /late --same late
	umount /late
fi
kho-guest hash-tree /k/kept --same kept
for file in /k/kept/folios /k/made*; do
	[ ! -e "$file" ] || kho-guest map hash "$file" | kho-guest same $(basename "$file")
done
cat /sys/fs/khofs/status
kho status | grep '^khofs' >/tmp/status
cat /tmp/status
if [ -n "$large" ]; then
	! grep 'without huge' /tmp/status || false
	[ "$(status_of vm huge)" -ge $((14 << 20)) ]
	[ "$(kho-guest map huge /k/kept/folios)" = 6144 ]
	# A folio assembled from single pages, each in its place, is mapped as well as any other.
	[ "$KHO_HOP" = 0 ] || [ "$(kho-guest map huge /k/made-1)" -ge 4096 ]
else
	grep '^khofs *without huge pages in this kernel: .' /tmp/status
	[ "$(status_of vm huge)" = 0 ]
	[ "$(kho-guest map huge --advise /k/made-0)" = 0 ]
	mount -o remount,huge=always /k
	echo x >/k/small
	[ "$(stat -c %b /k/small)" = 8 ]
	# A direct read into pages that were a folio, and all kinds of cuts.
	# The file is larger than the program that is read.
	kho-guest map direct "$(which kho)" /k/made-0
	kho-guest bytes $((16 << 20)) --seed 10 | dd of=/k/made-0 bs=1M conv=notrunc 2>/dev/null
	mount -o remount,huge=advise /k
fi
# Bytes written through a huge page behind the end of a file arrive in memory, and do not become part of the file later.
if [ -e /k/behind ]; then
	truncate -s 2097152 /k/behind
	[ "$(tr -d '\0' </k/behind)" = x ]
	rm /k/behind
fi
mount -o remount,huge=always /k
echo x >/k/behind
[ -z "$large" ] || behind /k/behind 100000
mount -o remount,huge=advise /k
for seed in 1 2; do
	kho-guest map cut /k/cut --seed $((KHO_HOP * 10 + seed)) --steps 30
done
kho-guest map pinned /k/pinned --past-end
fallocate -l 16m /k/made-$KHO_HOP
kho-guest bytes $((16 << 20)) --seed $((10 + KHO_HOP)) | dd of=/k/made-$KHO_HOP bs=1M conv=notrunc 2>/dev/null
[ -z "$KHO_NEXT" ] || kho-guest hash </k/made-$KHO_HOP | kho-guest same made-$KHO_HOP
rm -f /k/small

# With the build for tests, which stops releases and mounts at a step in the middle: other operations wait for them.
active=/sys/kernel/kho/active
p=/sys/module/khofs/parameters
somebody_waits() {
	[ "$(cat $p/waits)" = Y ]
}
# ends_at_step: begins to release the instance "gone", which is not mounted, up to the step before its files are freed.
ends_at_step() {
	echo release >$p/wait_at
	echo gone >/sys/fs/khofs/release &
	release=$!
	within_a_minute somebody_waits
}
# goes_on PID: PID has waited until now; lets the stopped operation go on.
goes_on() {
	sleep 1
	kill -0 $1
	echo >$p/wait_at
}
case $KHO_HOP in
2)
	mount_khofs /gone name=gone
	echo x >/gone/file
	umount /gone
	# An activation sees an instance either whole or not at all while it is released.
	ends_at_step
	echo 1 >$active &
	other=$!
	goes_on $other
	wait $release
	wait $other
	kho dump --file /sys/kernel/kho/dt >/tmp/dt
	grep ' late {' /tmp/dt
	fails grep ' gone {' /tmp/dt
	echo 0 >$active
	# A mount waits for the release, too.
	mount_khofs /gone name=gone
	echo x >/gone/file
	umount /gone
	ends_at_step
	mount -t khofs none /gone -o name=gone &
	other=$!
	goes_on $other
	wait $release
	wait $other
	[ -z "$(ls /gone)" ]
	umount /gone
	# Another release waits, too.
	ends_at_step
	sh -c 'echo gone >/sys/fs/khofs/release' &
	other=$!
	goes_on $other
	wait $release
	fails wait $other
	[ -z "$(status_of gone state)" ]
	# Memory is allocated in steps, which nobody who enters the phase waits for; what was begun before goes no further in it.
	echo allocate >$p/wait_at
	fallocate -l 6m /k/steps &
	steps=$!
	within_a_minute somebody_waits
	echo 1 >$active
	echo >$p/wait_at
	fails wait $steps
	[ "$(stat -c %s /k/steps)" = 0 ]
	echo 0 >$active
	fallocate -l 6m /k/steps
	[ "$(stat -c '%s %b' /k/steps)" = '6291456 12288' ]
	rm /k/steps
	# A mount that is filling an instance is waited for, too: what is written down is what there is then.
	echo fill >$p/wait_at
	mount_khofs /late name=late &
	mount=$!
	within_a_minute somebody_waits
	echo 1 >$active &
	other=$!
	goes_on $other
	wait $mount
	wait $other
	kho-guest fill
	load
	kho-guest fill
	;;
3)
	mount_khofs /late name=late
	kho-guest hash-tree /late --same late
	;;
esac
