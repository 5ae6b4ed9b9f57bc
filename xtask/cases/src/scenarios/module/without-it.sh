[ ! -e $sys ]
kho status
kho status | grep -q 'module    not loaded; what drivers left stays reserved'
for module in /lib/modules/*/updates/kho.ko; do fails insmod $module; done
kho-guest ranges --at-least 2
kho-guest fill
[ $(kho get blob) = kept ]
refused 'kho.ko is not loaded' kho release blob
