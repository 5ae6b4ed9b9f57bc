[ "$(fact arrival)" = 'none, an ordinary boot' ]
[ ! -e $sys/in/dt ]
[ $(cat $ring/origin) = new ]
kho status | grep -q 'nothing: this was an ordinary boot'
kho-guest fill
echo 1 >$sys/active
frozen
echo 0 >$sys/active
