# On a first boot, where `out/fdt` exists.
[ ! -e $D/in ]
side out | head -1 | grep -x 'out: kho-v4'
side out | grep -x '  preserved memory: described at 0x[0-9a-f]*'
status=0
kho validate $D/out/fdt || status=$?
