mount_khofs /k name=vm,size=$KHO_PERCENT%
is_part_of_memory
fallocate -l $((KHO_BIG << 20)) /k/vm
kho-guest bytes $((KHO_BIG << 20)) --seed 9 | dd of=/k/vm bs=1M conv=notrunc 2>/dev/null
kho-guest hash --same vm </k/vm
cat /sys/fs/khofs/status
[ "$(status_of vm huge)" = $((KHO_BIG << 20)) ]
# khofs takes adjacent chunks of 2 MiB, so the ranges are few.
[ "$(status_of vm ranges)" -le 8 ]
umount /k
