# Verbs are killed at steps at which they change something: at every third, and at fewer of long verbs. With EACH=1 they are
# killed at every step, and this guest runs only the verbs in PARTS.
every=3
[ -z "${EACH:-}" ] || every=1

# A small tree with every kind of entry: so a restore has few steps, but makes each kind of call.
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

# some TRIES NAME CHECK COMMAND…: sweeps over TRIES steps of COMMAND, or over all. At the call COMMAND must be able to
# succeed.
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

# The list of kept entries is the old one or the new one, and does not obstruct the next command.
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

# The loaded image is kho's and whole, or kho knows that it is not its own, or none is loaded.
nothing_half_loaded() {
	kho status --json >/tmp/status || return 1
	if [ "$(cat /sys/kernel/kexec_loaded)" = 0 ]; then
		! grep -q '"by": "kho"' /tmp/status || return 1
	else
		# kho exec refuses an image without its record, and the next load replaces it.
		grep -q '"by": "kho"' /tmp/status || refused '' kho exec || return 1
	fi
	# Any command that changes something clears up after a killed one.
	kho keep --remove no-such-entry 2>/dev/null || [ $? = 34 ]
}

# As nothing_half_loaded, and afterwards an image is loaded that can be unloaded.
loaded_again() {
	nothing_half_loaded && load >/dev/null
}

# The armed kernel is whole, or none is armed: a start of the loaded image never loses kept content silently.
armed_or_not() {
	nothing_half_loaded || return 1
	[ "$(cat /sys/kernel/kexec_loaded)" = 0 ] || kho unload >/dev/null
}

# The steps of the unit after a killed capture: it falls back, and nothing out of date starts. Then a kernel can be
# armed again.
captured_or_settled() {
	# Only a capture that the unit starts tells --settle that it finished: so here --settle has work to do each
	# time.
	refused 'NOTHING IS HANDED OVER' kho capture --settle >/dev/null || {
		cat /tmp/refused
		return 1
	}
	[ "$(cat /sys/kernel/kexec_loaded)" = 0 ] && [ ! -e /run/kho/armed.json ] || return 1
	nothing_half_loaded || return 1
	kho load --arm "$@" "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE" >/dev/null
}

# The place holds the whole tree or nothing. The next restore clears up after a killed one.
whole_or_absent() {
	[ -e /srv/tree ] || return 0
	[ "$(kho-guest hash-tree /srv/tree)" = "$(cat /tmp/digest)" ] || return 1
	rm -rf /srv/tree
}

# As whole_or_absent. Also removes leftovers, so that the steps of the next restore are those of a restore alone.
whole_or_absent_alone() {
	whole_or_absent || return 1
	find /srv -mindepth 1 -maxdepth 1 ! -name '.kho*' | grep . && return 1
	find /srv -mindepth 1 -maxdepth 1 -exec rm -rf {} +
}

# As whole_or_absent_alone, and this boot has no record of a restore.
whole_or_absent_unseen() {
	fine && whole_or_absent_alone || return 1
	rm -rf /run/kho
}

fine() {
	kho status --json >/dev/null
}

# looks COMMAND…: COMMAND changes nothing and leaves nothing behind, wherever it is killed.
looks() {
	sweep "$1" 1 $every fine kho "$@"
}

case $KHO_HOP in
0)
	if [ -n "${EACH:-}" ]; then keep_small_tree_and_blob; else keep_tree_and_blob 1; fi
	kho-guest hash-tree /srv/tree | kho keep --name digest -
	kho-guest bytes 200000 --seed 9 >/tmp/x
	if part keep; then
		sweep 'keep from standard input' 1 $every list_is_whole sh -c 'exec kho keep --name x - </tmp/x'
		# Every sweep ends with a run that completes.
		kho keep --remove x
		mkdir /srv/more
		cp /tmp/x /srv/more
		sweep 'keep a path' 1 $every list_is_whole kho keep /srv/more --name x
		sweep 'keep --remove' 1 $every list_has_x_or_not kho keep --remove x
		sweep 'keep --trace' 1 $every list_is_whole kho keep --trace
		sweep 'keep --no-trace' 1 $every list_is_whole kho keep --no-trace
		mkdir -p /etc/kho/keep.d
		echo 'd /srv/more name=x' >/etc/kho/keep.d/x.conf
		sweep 'keep --from-config' 1 $every list_is_whole kho keep --from-config
		rm /etc/kho/keep.d/x.conf
		kho keep --from-config
	fi
	set -- "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
	if part load; then
		some 6 load nothing_half_loaded kho load --enter bzimage "$@"
	fi
	if part unload; then
		load
		sweep unload 1 $every nothing_half_loaded kho unload
		load
		sweep 'unload, loaded each time' 1 $every loaded_again kho unload
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
	# At shutdown: kho takes the kernel first, then the content.
	if part arm; then
		some 6 'load --arm' armed_or_not kho load --arm "$@"
		armed_or_not
	fi
	if part capture; then
		kho load --arm "$@"
		some 5 capture captured_or_settled kho capture
		kho unload
	fi
	# A load and an exec in one. At the last step, the start of the next kernel, the command is killed in any case.
	if part reboot; then
		sweep reboot 1 ${EACH:-40} nothing_half_loaded kho reboot "$@"
	fi
	if part exec; then
		load
		sweep exec 1 $every nothing_half_loaded kho exec
		kho-guest loaded
	fi
	;;
*)
	# The exec that was killed so often has succeeded now.
	kho get digest >/tmp/digest
	if part restore; then
		if [ -n "${EACH:-}" ]; then
			some 14 restore whole_or_absent_alone kho restore srv-tree
		else
			some 14 restore whole_or_absent kho restore srv-tree
		fi
		whole_or_absent
	fi
	if part boot; then
		# A restore of content that was restored before has few steps.
		whole_or_absent_unseen
		some 5 'restore --boot' whole_or_absent_unseen kho restore --boot
		whole_or_absent_unseen
	fi
	if part arrived; then
		sweep get 1 $every fine sh -c 'exec kho get blob >/dev/null'
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
