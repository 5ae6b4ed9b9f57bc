mkdir /khofs /tmpfs
mount -t khofs none /khofs
mount -t tmpfs none /tmpfs
for fs in tmpfs khofs; do
	kho-guest speed /$fs >/tmp/first
done
for round in $(seq $rounds); do
	for fs in tmpfs khofs; do
		kho-guest speed /$fs | sed "s/^/@speed $fs /"
	done
done
