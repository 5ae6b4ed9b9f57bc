# A chain in which each kernel hands a damaged tree to the next.
case $KHO_HOP in
1) damage=none status=0 words= next=checksum ;;
2) damage=checksum status=61 words='checksum over the state tree' next=container ;;
3) damage=container status=61 words='first word is 0x' next=version ;;
4) damage=version status=62 words='the tree is a .*-v9' next=overlap ;;
5) damage=overlap status=61 words='overlaps' next=wrap ;;
6) damage=wrap status=61 words='`mem`\[0\] is no range' next=scratch ;;
7) damage=scratch status=61 words='reaches into scratch' next=unreserved ;;
8) damage=unreserved status=61 words='not inside the mem cache' next=chain ;;
9) damage=chain status=61 words='does not belong to this boot' next=content ;;
10) damage=content status=0 words= next= ;;
*) damage=fresh status=0 words= next=none ;;
esac
K=${KHO_NEXT_KERNEL:-} I=${KHO_NEXT_INITRD:-} C=${KHO_NEXT_CMDLINE:-}
echo "== $damage"

if [ "$KHO_HOP" -gt 0 ]; then
	# The chain's ranges stay reserved whatever the tree says, before and after all free memory is overwritten.
	kho-guest ranges --at-least 1
	kho-guest fill
	kho-guest ranges --at-least 1
	closed_to_nobody
fi
if [ $status != 0 ]; then
	expect $status "$words" -- kho status
	grep -q 'DAMAGED: [1-9]' /tmp/out || wrong 'kho status does not say what is held'
	expect $status "$words" -- kho status --json
	grep -q '"ranges": [1-9]' /tmp/out || wrong 'kho status --json does not say what is held'
	case $damage in
	checksum | container) expect 61 "$words" -- kho dump ;;
	*) holds kho dump ;;
	esac
	holds kho dump --raw
	expect $status "$words" -- kho restore
	expect $status "$words" -- kho restore --into /mnt
	[ -z "$(ls -A /mnt)" ] || wrong 'something was restored'
	expect $status "$words" -- kho get victim
	expect $status "$words" -- kho plan "$K" --initrd "$I" --append "$C"
	expect $status 'kho load --forget-arrived begins a new chain' -- kho load "$K" --initrd "$I" --append "$C"
	holds kho keep --list
fi
if [ $damage = none ] || [ $damage = content ]; then
	holds kho status
	kho get sound >/tmp/sound
	kho-guest bytes 200000 --seed 6 | head -c "$(stat -c %s /tmp/sound)" | cmp - /tmp/sound || wrong 'sound is not'
fi
if [ $damage = none ]; then
	holds kho get victim
fi
if [ $damage = content ]; then
	expect 63 'victim: its .* bytes hash to' -- kho get victim
	expect 63 'victim: its .* bytes hash to' -- kho restore --into /mnt victim
	[ -z "$(ls -A /mnt)" ] || wrong 'something was restored'
	# The last hop is an ordinary one.
	echo out | kho keep --name out -
	holds kho load "$K" --initrd "$I" --append "$C" --forget-arrived
	still_ours
	finish
	kho-guest loaded
	exit
fi
if [ -z "$K" ]; then
	[ "$(kho get out)" = out ] || wrong 'the way out lost something'
	kho status --json | grep -q '"hop": 1,' || wrong 'the new chain does not begin at 1'
	fails kho get victim
	finish
	exit
fi

kho-guest bytes 200000 --seed 6 >/tmp/content
kho keep --name content - </tmp/content
kho plan "$K" --initrd "$I" --append "$C" --forget-arrived --json >/tmp/plan
kho-guest load-damaged $next "$K" --initrd "$I" --append "$C" --content /tmp/content </tmp/plan
finish
kho-guest loaded --bare
