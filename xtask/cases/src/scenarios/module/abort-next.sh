case $(fact kernel-part) in 'it is no tree'*) ;; *) cat $sys/status; exit 1 ;; esac
[ ! -e $sys/in/dt ]
[ $(cat $ring/origin) = new ]
kho status | grep 'is ignored and stays reserved'
kho-guest fill
kho release all
[ $(fact unclaimed) = 0 ]
kho-guest fill
ring_add 4
