load() {
	before=$(kho-guest boottime)
	kho load "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
	after=$(kho-guest boottime)
	echo "$before $after" | awk '{print $2 - $1}' | kho-guest report load-seconds-$1
}
for number in 1 2 3 4; do
	kho-guest bytes $((256 << 20)) --seed $number >/tmp/blob
	kho-guest hash --same blob$number </tmp/blob
	kho keep --name blob$number - </tmp/blob
	rm /tmp/blob
	[ $number != 1 ] || load 256
done
load 1024
kho-guest loaded
