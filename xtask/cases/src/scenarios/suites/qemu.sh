# A virtual machine whose memory is a file on khofs lives on in the next kernel. QEMU saves its processor and devices as
# for a migration, but not its memory, which stays in place. The program in the machine counts in a register and writes
# the number to memory: after a restart the number would be small.
foreign
mkdir -p /k
mount -t khofs none /k -o name=vm
counter() {
	od -An -tu4 -j 36864 -N 4 /k/ram | tr -d ' '
}
vm() {
	[ -p /tmp/monitor ] || mkfifo /tmp/monitor
	qemu-system-x86_64 -L /usr/share/seabios -L /usr/share/qemu -accel tcg -machine pc,memory-backend=ram -m 48 \
		-nodefaults -display none \
		-object memory-backend-file,id=ram,size=48M,mem-path=/k/ram,share=on \
		-drive if=floppy,format=raw,file=/tmp/boot,readonly=on -monitor stdio "$@" </tmp/monitor >/tmp/said 2>&1 &
	vm=$!
	exec 5>/tmp/monitor
}
say() {
	echo "$*" >&5
}
# counts_beyond NUMBER: waits until the machine has counted past NUMBER.
counts_beyond() {
	waited=0
	while [ "$(counter)" -le "$1" ] || [ "$(counter)" -gt 100000000 ]; do
		sleep 1
		waited=$((waited + 1))
		if [ $waited -gt 100 ] || ! kill -0 $vm; then
			tr -d '\033' </tmp/said | tail -n 5
			counter
			exit 1
		fi
	done
}

# again: inc ebx; mov [0x9000], ebx; xor cx, cx; wait: loop wait; jmp again
printf '\061\300\216\330\146\061\333\146\103\146\211\036\000\220\061\311\342\376\353\363' >/tmp/boot
truncate -s 510 /tmp/boot
printf '\125\252' >>/tmp/boot
truncate -s 1440k /tmp/boot

if [ "$KHO_HOP" = 0 ]; then
	kho-guest bytes $((48 << 20)) --seed 4 >/k/ram
	dd if=/dev/zero of=/k/ram bs=4096 seek=9 count=1 conv=notrunc 2>/dev/null
	vm
	counts_beyond 100
else
	kho-guest fill
	kho-guest hash </k/ram >/tmp/hash
	cmp /tmp/hash /k/hash
	before=$(counter)
	vm -incoming defer
	say migrate_set_capability x-ignore-shared on
	say migrate_incoming file:/k/state
	sleep 5
	[ "$(counter)" = "$before" ]
	say cont
	counts_beyond "$before"
	echo "went on from $before to $(counter)"
	[ "$(counter)" -lt $((before + 10000000)) ]
fi
if [ -n "$KHO_NEXT" ]; then
	say stop
	say migrate_set_capability x-ignore-shared on
	say migrate file:/k/state
	say info migrate
fi
say quit
wait $vm
if [ -n "$KHO_NEXT" ]; then
	grep -q 'Migration status: completed' /tmp/said
	# The saved state does not include the memory.
	[ "$(stat -c %s /k/state)" -lt $((4 << 20)) ]
	kho-guest hash </k/ram >/k/hash
	cat /k/hash
fi
