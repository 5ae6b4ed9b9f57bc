ring_add 2
load
echo 0 >$sys/active
kho status | grep 'loaded .*STALE, the active phase is not the one that was loaded'
refused 'the active phase is not the one that was loaded' kho exec
refused 'the active phase is not the one that was loaded' kho exec --stale-ok
echo 1 >$sys/active
refused 'the active phase is not the one that was loaded' kho exec
# A refused load leaves the phase as it was; if it froze the drivers, it thaws them.
kho abort
thawed
refused 'scratch' load --scratch 1M
thawed
refused 'the active phase is not entered' load --no-activate
thawed
load
frozen
kho unload
thawed
kho activate
load --no-activate
kho unload
frozen
kho abort
load
echo 0 >$sys/active
# The kernel reuses the pages before the image is started.
ring_add 2
kho-guest fill
kho-guest loaded --bare
