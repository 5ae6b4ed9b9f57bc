kho-guest ranges --at-least $count
kho status
kho-guest fill
kho-guest ranges --at-least $count
kho status
