# A chain in which each kernel hands a forged kernel's part to the next.
case $KHO_HOP in
0) want= next=none ;;
1) want=arrived next=version ;;
2) want='it is of another version' next=extra ;;
3) want=arrived next=driver ;;
4) want=arrived next=damaged ;;
5) want='it is damaged or contradicts itself' next=generation ;;
6) want='it is not the one that was loaded' next=aborted ;;
7) want='it is no tree: aborted after the image was loaded, or overwritten' next=acpi ;;
8) want='refused, a range is not RAM that early boot reserved for it' next= ;;
esac
cat $sys/status
if [ "$KHO_HOP" -gt 0 ]; then
	case $want in
	refused*) [ "$(fact arrival)" = "$want" ] ;;
	*)
		[ "$(fact kernel-part)" = "$want" ]
		[ "$(fact not-reserved-pages)" = 0 ]
		;;
	esac
	# The module neither shows nor gives away a part that it cannot believe.
	if [ "$want" = arrived ]; then
		kho status | grep -q 'unclaimed /held'
		[ "$(cat $ring/origin)" = new ]
		# A node of another producer does not obstruct kho's own, and is handed over again beside it.
		echo 1 >$sys/active
		fails sh -c "echo /held >$sys/release"
		grep -q -a held $sys/dt
		echo 0 >$sys/active
	else
		[ ! -e $sys/in/dt ]
	fi
	case $want in
	refused*) ;;
	*)
		kho get sound >/tmp/sound
		kho-guest bytes 200000 --seed 6 | head -c "$(stat -c %s /tmp/sound)" | cmp - /tmp/sound
		kho-guest ranges --at-least 1
		;;
	esac
	kho-guest fill
	case $want in
	refused*) ;;
	*)
		# All memory that is left goes back to the system, once.
		before=$(mem_total)
		echo all >$sys/release
		[ "$(fact unclaimed)" = 0 ]
		[ "$(mem_total)" -gt "$before" ]
		kho-guest fill
		;;
	esac
fi
[ -n "$next" ] || exit 0

kho-guest bytes 200000 --seed 6 >/tmp/content
kho keep --name content - </tmp/content
kho plan "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE" --forget-arrived --json >/tmp/plan
kho-guest load-damaged none --part $next "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" \
	--append "$KHO_NEXT_CMDLINE" --content /tmp/content </tmp/plan
kho-guest loaded --bare
