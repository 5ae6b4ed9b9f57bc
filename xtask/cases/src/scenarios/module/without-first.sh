ring_add 6
insmod $modules/kho_test.ko pages=1001 nodes=1000
echo kept | kho keep --name blob -
refused 'has no kho.ko' load
thawed
load --no-module-check
kho-guest loaded
