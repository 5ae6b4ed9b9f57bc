# Number of huge pages that the kernel can make of the wanted ones; the kernel compacts and takes free memory.
huge() {
	echo 3 >/proc/sys/vm/drop_caches
	echo 1 >/proc/sys/vm/compact_memory
	echo $1 >/proc/sys/vm/nr_hugepages
	cat /proc/sys/vm/nr_hugepages
	echo 0 >/proc/sys/vm/nr_hugepages
}
# Nearly all free memory, less some for the system.
spare() {
	awk '/^MemFree/ {print int(($2 - 98304) / 2048)}' /proc/meminfo
}
kho-guest fill
before=$(huge $(spare))
[ $(fact unclaimed) -ge $((256 << 20)) ]
kho release all
after=$(huge $((before + 120)))
echo "$before huge pages before, $after after 128 were released"
[ $after = $((before + 120)) ]
insmod $modules/kho_test.ko blocks=128
