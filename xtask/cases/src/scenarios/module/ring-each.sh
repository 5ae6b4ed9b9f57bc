kho-guest fill
[ "$(cat $ring/origin)" = "inherited from $(fact previous-release)" ]
[ $(fact hop) = $KHO_HOP ]
kho status | grep -q "hop $KHO_HOP from $(fact previous-release),"
# The same at every hop.
kho-guest same scratch "$(cat $sys/scratch)"
