# Commands that use the module are killed at every step that changes anything; a load at some steps, with EACH=1 at
# every one. In every resulting phase: the phase can be left, drivers go on, and no image starts whose part is gone.
added=0

whole() {
	kho status --json >/tmp/status || return 1
	case $(cat $sys/active) in
	1) [ -e $sys/dt ] || return 1 ;;
	*) thawed || return 1 ;;
	esac
	kho abort || return 1
	thawed || return 1
	[ "$(cat /sys/kernel/kexec_loaded)" = 0 ] || refused '' kho exec || return 1
	echo record >$ring/add || return 1
	added=$((added + 1))
	[ "$(cat $ring/counter)" = $added ]
}
active_again() {
	whole && echo 1 >$sys/active
}
loaded_again() {
	whole && load >/dev/null
}
# The blob exists or was released; a command that was killed between the two can be repeated.
given_or_not() {
	kho status --json >/tmp/status || return 1
	if kho get blob >/tmp/got 2>/tmp/why; then
		cmp -s /tmp/got /tmp/blob
	else
		grep -q 'given back' /tmp/why
	fi
}

kho-guest bytes 300000 --seed 4 >/tmp/blob
case $KHO_HOP in
0)
	sweep activate 1 1 whole kho activate
	whole
	echo 1 >$sys/active
	sweep 'abort while active' 1 1 active_again kho abort
	kho keep --name blob - </tmp/blob
	set -- kho load --enter bzimage "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
	total=$(steps "$@")
	echo "a load has $total steps"
	sweep load ${EACH:-2} ${EACH:-$((total / 8 + 1))} whole "$@"
	whole
	load >/dev/null
	sweep 'abort with an image' 1 ${EACH:-2} loaded_again kho abort
	whole
	load
	echo $added | kho-guest report added
	sweep exec 1 1 loaded_again kho exec
	frozen
	kho status | grep -q 'loaded    .* for hop'
	kho-guest loaded
	;;
*)
	[ "$(cat $ring/counter)" -gt 20 ]
	kho-guest fill
	before=$(mem_total)
	sweep release 1 1 given_or_not kho release blob
	refused 'given back' kho get blob
	[ "$(mem_total)" -ge $((before + 292)) ]
	;;
esac
kho-guest report kills $points
