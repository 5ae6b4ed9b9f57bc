kho-guest make-tree /srv/demo --bytes $bytes --seed $seed
kho-guest hash-tree /srv/demo --same tree
echo 'Dear next kernel, the memory is yours, but these bytes are mine.' >/tmp/letter
kho-guest bytes 5000000 --seed $seed_of_random >/tmp/random
kho-guest hash --same letter </tmp/letter
kho-guest hash --same random </tmp/random
kho keep /srv/demo
kho keep --name letter - </tmp/letter
kho keep --name random - </tmp/random
if [ -e /sys/kernel/kho_ring ]; then
	for number in $(seq 500); do echo "record $seed" >/sys/kernel/kho_ring/add; done
	mkdir -p /srv/vm && mount -t khofs none /srv/vm
	kho-guest bytes $bytes --seed $seed_of_image >/srv/vm/image
fi
rm /tmp/letter /tmp/random
