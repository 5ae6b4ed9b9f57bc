# Every verb is killed at every step at which it changes something. STRIDE: of the steps of a load, which takes long,
# only every so many are tried.

# The list of what is kept is the old one or the new one, and is not in the way of the next command.
list_is_whole() {
	kho keep --list --json >/tmp/list || return 1
	case $(grep -c '"name": "x"' /tmp/list) in
	0) ;;
	1)
		grep -Eq '"from": "(standard input, 195 KiB|/srv/more)"' /tmp/list || return 1
		kho keep --remove x
		;;
	*) return 1 ;;
	esac
}
list_has_x_or_not() {
	kho keep --list --json >/tmp/list || return 1
	grep -q '"name": "x"' /tmp/list || kho keep --name x - </tmp/x
}

# Whatever is loaded is ours and whole, or is known not to be ours, or nothing is loaded.
nothing_half_loaded() {
	kho status --json >/tmp/status || return 1
	if [ "$(cat /sys/kernel/kexec_loaded)" = 0 ]; then
		! grep -q '"by": "kho"' /tmp/status || return 1
	else
		# An image without its record is refused by kho exec, and replaced by the next load.
		grep -q '"by": "kho"' /tmp/status || refused '' kho exec
	fi
	# Any command that changes something clears up behind one that was killed.
	kho keep --remove no-such-entry 2>/dev/null || [ $? = 34 ]
}

# The kernel that was armed is whole, or none is: whatever is loaded, a start of it never misses what is kept silently.
armed_or_not() {
	nothing_half_loaded || return 1
	[ "$(cat /sys/kernel/kexec_loaded)" = 0 ] || kho unload >/dev/null
}

# What the unit does after a capture that was killed: it falls back, and nothing out of date starts. Then it can be armed anew.
captured_or_settled() {
	kho capture --settle >/tmp/settled 2>&1 || true
	nothing_half_loaded || return 1
	kho load --arm "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE" >/dev/null
}

# The place holds all of it or nothing.
whole_or_absent() {
	[ -e /srv/tree ] || return 0
	[ "$(kho-guest hash-tree /srv/tree)" = "$(cat /tmp/digest)" ] || return 1
	rm -rf /srv/tree
}

fine() {
	kho status --json >/dev/null
}

case $KHO_HOP in
0)
	keep_tree_and_blob 1
	kho-guest hash-tree /srv/tree | kho keep --name digest -
	kho-guest bytes 200000 --seed 9 >/tmp/x
	sweep 'keep from standard input' 1 1 list_is_whole sh -c 'exec kho keep --name x - </tmp/x'
	# Every sweep ends with a run that nothing stopped.
	kho keep --remove x
	mkdir /srv/more
	cp /tmp/x /srv/more
	sweep 'keep a path' 1 1 list_is_whole kho keep /srv/more --name x
	sweep 'keep --remove' 1 1 list_has_x_or_not kho keep --remove x

	set -- kho load "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
	total=$(steps "$@")
	stride=${STRIDE:-$((total / 6 + 1))}
	echo "a load has $total steps, every ${stride}th is tried"
	sweep load 3 $stride nothing_half_loaded "$@"
	load
	sweep unload 1 1 nothing_half_loaded kho unload
	# What only looks has few steps, and leaves nothing.
	sweep status 1 1 fine kho status
	sweep doctor 1 1 fine kho doctor
	set -- "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
	total=$(steps kho plan "$@")
	sweep plan 1 $((total / 4 + 1)) fine kho plan "$@"

	# At shutdown: first the kernel is taken, then the content.
	total=$(steps kho load --arm "$@")
	stride=${STRIDE:-$((total / 6 + 1))}
	echo "arming has $total steps, every ${stride}th is tried"
	sweep 'load --arm' 1 $stride armed_or_not kho load --arm "$@"
	# The sweep ended with a run that nothing stopped: it is armed.
	total=$(steps kho capture)
	stride=${STRIDE:-$((total / 5 + 1))}
	echo "a capture has $total steps, every ${stride}th is tried"
	kho load --arm "$@"
	sweep capture 2 $stride captured_or_settled kho capture
	kho unload

	load
	sweep exec 1 1 nothing_half_loaded kho exec
	kho-guest loaded
	;;
*)
	# The exec that was killed so often has happened now.
	kho get digest >/tmp/digest
	total=$(steps kho restore srv-tree)
	whole_or_absent
	stride=$((total / ${RESTORES:-40} + 1))
	echo "a restore has $total steps, every ${stride}th is tried"
	sweep restore 1 $stride whole_or_absent kho restore srv-tree
	whole_or_absent
	sweep get 1 1 fine sh -c 'exec kho get blob >/dev/null'
	kho-guest ranges --at-least 1
	kho-guest fill
	kho restore srv-tree
	kho-guest hash-tree /srv/tree --same tree
	kho get blob | kho-guest hash --same blob
	left=$(find /srv -name '.kho*')
	[ -z "$left" ]
	echo "restored at last, nothing left behind"
	;;
esac
echo "$points kills" 
kho-guest report kills $points
