scratch() { grep -A 2 '"scratch"' /tmp/plan | tr -d ' \n'; }
keep_tree_and_blob 64
load() { kho $1 "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE" --json; }
load plan >/tmp/plan
before=$(scratch)
load load
load plan >/tmp/plan
echo "$before $(scratch)"
[ "$before" = "$(scratch)" ]
load load
load load
kho-guest loaded
