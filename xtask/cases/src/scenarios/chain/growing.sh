kho-guest ranges --at-least 1
kho-guest fill
size=$(kho get growing | wc -c)
[ "$size" = $((KHO_HOP << 20)) ]
kho get growing >/tmp/blob
kho-guest bytes $((KHO_HOP << 20)) --seed 0 | cmp - /tmp/blob
kho-guest bytes $(((KHO_HOP + 1) << 20)) --seed 0 >/tmp/blob
kho keep --remove growing
kho keep --name growing - </tmp/blob
rm /tmp/blob
free -m | head -2
