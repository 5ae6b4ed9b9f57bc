# Verbs are killed at steps at which they change something. Of those that take long only some are tried; with EACH=1 every
# single one is, and this guest does the verbs in PARTS only.

# A tree of every kind of entry, and few of each: a step for each call that a restore makes, and not for each file.
keep_small_tree_and_blob() {
	mkdir -p /srv/tree/dir/deep /srv/tree/sticky
	for file in dir/large dir/deep/other; do kho-guest bytes 300000 --seed 3 >/srv/tree/$file; done
	: >/srv/tree/empty
	ln /srv/tree/dir/large /srv/tree/sticky/same
	ln -s dir/large /srv/tree/link
	truncate -s 1M /srv/tree/hole
	chmod 1777 /srv/tree/sticky
	chmod 640 /srv/tree/dir/large
	chown 5:6 /srv/tree/dir/deep/other /srv/tree/dir
	touch -d '2001-02-03 04:05:06' /srv/tree/dir/deep/other /srv/tree/dir/deep
	kho-guest hash-tree /srv/tree --same tree
	kho-guest bytes 300001 --seed 2 >/tmp/blob
	kho-guest hash --same blob </tmp/blob
	kho keep /srv/tree
	kho keep --name blob - </tmp/blob
	rm /tmp/blob
}

part() {
	[ -z "${EACH:-}" ] || case " $PARTS " in *" $1 "*) ;; *) return 1 ;; esac
}

# some TRIES NAME CHECK COMMAND…: sweeps over so many of its steps, or all. Called when the command can do its work.
some() {
	local tries=$1 name=$2 check=$3 total first stride
	shift 3
	total=$(steps "$@")
	$check
	first=2 stride=$((total / tries + 1))
	[ -z "${EACH:-}" ] || first=1 stride=1
	echo "$name has $total steps, tried is every ${stride}th from the ${first}th"
	sweep "$name" "$first" "$stride" "$check" "$@"
}

# The list of what is kept is the old one or the new one, and is not in the way of the next command.
list_is_whole() {
	kho keep --list --json >/tmp/list || return 1
	case $(grep -c '"name": "x"' /tmp/list) in
	0) ;;
	1)
		grep -Eq '"from": "(standard input, 195 KiB|/srv/more)"' /tmp/list || return 1
		kho keep --remove x >/dev/null
		;;
	*) return 1 ;;
	esac
}
list_has_x_or_not() {
	kho keep --list --json >/tmp/list || return 1
	grep -q '"name": "x"' /tmp/list || kho keep --name x - </tmp/x >/dev/null
}

# Whatever is loaded is ours and whole, or is known not to be ours, or nothing is loaded.
nothing_half_loaded() {
	kho status --json >/tmp/status || return 1
	if [ "$(cat /sys/kernel/kexec_loaded)" = 0 ]; then
		! grep -q '"by": "kho"' /tmp/status || return 1
	else
		# An image without its record is refused by kho exec, and replaced by the next load.
		grep -q '"by": "kho"' /tmp/status || refused '' kho exec || return 1
	fi
	# Any command that changes something clears up behind one that was killed.
	kho keep --remove no-such-entry 2>/dev/null || [ $? = 34 ]
}

# The same, and there is something to unload again.
loaded_again() {
	nothing_half_loaded && load >/dev/null
}

# The kernel that was armed is whole, or none is: whatever is loaded, a start of it never misses what is kept silently.
armed_or_not() {
	nothing_half_loaded || return 1
	[ "$(cat /sys/kernel/kexec_loaded)" = 0 ] || kho unload >/dev/null
}

# What the unit does after a capture that was killed: it falls back, and nothing out of date starts. Then it can be armed anew.
captured_or_settled() {
	# Only a capture that the unit calls tells --settle that it has come to its end: here there is something to settle each time.
	refused 'NOTHING IS HANDED OVER' kho capture --settle >/dev/null || {
		cat /tmp/refused
		return 1
	}
	[ "$(cat /sys/kernel/kexec_loaded)" = 0 ] && [ ! -e /run/kho/armed.json ] || return 1
	nothing_half_loaded || return 1
	kho load --arm "$@" "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE" >/dev/null
}

# The place holds all of it or nothing. What a restore that was killed left beside it, the next one clears up.
whole_or_absent() {
	[ -e /srv/tree ] || return 0
	[ "$(kho-guest hash-tree /srv/tree)" = "$(cat /tmp/digest)" ] || return 1
	rm -rf /srv/tree
}

# The same; and the next restore begins with nothing to clear up, so that its steps are those of a restore.
whole_or_absent_alone() {
	whole_or_absent || return 1
	find /srv -mindepth 1 -maxdepth 1 ! -name '.kho*' | grep . && return 1
	find /srv -mindepth 1 -maxdepth 1 -exec rm -rf {} +
}

# The same, and it has not been restored yet as far as this boot knows.
whole_or_absent_unseen() {
	fine && whole_or_absent_alone || return 1
	rm -rf /run/kho
}

fine() {
	kho status --json >/dev/null
}

# looks COMMAND…: it changes nothing, and leaves nothing, wherever it ends.
looks() {
	sweep "$1" 1 1 fine kho "$@"
}

case $KHO_HOP in
0)
	if [ -n "${EACH:-}" ]; then keep_small_tree_and_blob; else keep_tree_and_blob 1; fi
	kho-guest hash-tree /srv/tree | kho keep --name digest -
	kho-guest bytes 200000 --seed 9 >/tmp/x
	if part keep; then
		sweep 'keep from standard input' 1 1 list_is_whole sh -c 'exec kho keep --name x - </tmp/x'
		# Every sweep ends with a run that nothing stopped.
		kho keep --remove x
		mkdir /srv/more
		cp /tmp/x /srv/more
		sweep 'keep a path' 1 1 list_is_whole kho keep /srv/more --name x
		sweep 'keep --remove' 1 1 list_has_x_or_not kho keep --remove x
		sweep 'keep --trace' 1 1 list_is_whole kho keep --trace
		sweep 'keep --no-trace' 1 1 list_is_whole kho keep --no-trace
		mkdir -p /etc/kho/keep.d
		echo 'd /srv/more name=x' >/etc/kho/keep.d/x.conf
		sweep 'keep --from-config' 1 1 list_is_whole kho keep --from-config
		rm /etc/kho/keep.d/x.conf
		kho keep --from-config
	fi
	set -- "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
	if part load; then
		some 6 load nothing_half_loaded kho load --enter bzimage "$@"
	fi
	if part unload; then
		load
		sweep unload 1 1 nothing_half_loaded kho unload
		load
		sweep 'unload, loaded each time' 1 1 loaded_again kho unload
		nothing_half_loaded
	fi
	if part kexec; then
		[ "$(cat /sys/kernel/kexec_loaded)" = 0 ] || kho unload
		some 3 'kexec -l' nothing_half_loaded kho kexec -l "$KHO_NEXT_KERNEL" "--initrd=$KHO_NEXT_INITRD" \
			"--append=$KHO_NEXT_CMDLINE"
		load
		some 3 'kexec -u' loaded_again kho kexec -u
	fi
	if part look; then
		looks status
		looks doctor
		looks compat --this
		looks trace --live
		some 4 plan fine kho plan "$@"
	fi
	# At shutdown: first the kernel is taken, then the content.
	if part arm; then
		some 6 'load --arm' armed_or_not kho load --arm "$@"
		armed_or_not
	fi
	if part capture; then
		kho load --arm "$@"
		some 5 capture captured_or_settled kho capture
		kho unload
	fi
	# A load and an exec in one: at the last step, the start of the next kernel, it is killed in any case.
	if part reboot; then
		sweep reboot 1 ${EACH:-40} nothing_half_loaded kho reboot "$@"
	fi
	if part exec; then
		load
		sweep exec 1 1 nothing_half_loaded kho exec
		kho-guest loaded
	fi
	;;
*)
	# The exec that was killed so often has happened now.
	kho get digest >/tmp/digest
	if part restore; then
		if [ -n "${EACH:-}" ]; then
			some 40 restore whole_or_absent_alone kho restore srv-tree
		else
			some 40 restore whole_or_absent kho restore srv-tree
		fi
		whole_or_absent
	fi
	if part boot; then
		# What was restored before has few steps left.
		whole_or_absent_unseen
		some 5 'restore --boot' whole_or_absent_unseen kho restore --boot
		whole_or_absent_unseen
	fi
	if part arrived; then
		sweep get 1 1 fine sh -c 'exec kho get blob >/dev/null'
		looks dump
		looks validate --in
		looks log
		kho dump --raw >/tmp/tree
		looks diff /tmp/tree --in
	fi
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
