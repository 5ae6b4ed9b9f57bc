if [ $KHO_HOP -gt 0 ]; then
	kho get growing >/tmp/blob
	kho-guest bytes $((KHO_HOP << 20)) --seed 0 | cmp - /tmp/blob
	kho keep --remove growing
fi
kho-guest bytes $(((KHO_HOP + 1) << 20)) --seed 0 >/tmp/blob
kho keep --name growing - </tmp/blob
rm /tmp/blob
records=$((2 * KHO_HOP))
[ "$(cat $ring/counter)" = $records ]
[ "$(wc -l <$ring/ring)" = $records ]
number=0
while read -r found text; do
	[ "$found $text" = "$number record of hop $((number / 2))" ]
	number=$((number + 1))
done <$ring/ring
echo "record of hop $KHO_HOP" >$ring/add
echo "record of hop $KHO_HOP" >$ring/add
awk '/^MemTotal/ {print $2}' /proc/meminfo | kho-guest report MemTotal
cat /sys/kernel/kho/status
