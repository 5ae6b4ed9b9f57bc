# Linux 7.3 shows only the beginning of this tree after subsystems have added to it.
side out | grep '^  ! the kernel shows 0x'
[ "$status" = 61 ]
entry out LUO | head -1 | grep 'luo-v5'
entry out kho_test | head -1 | grep 'kho-test-v1'
entry out kho_test | grep -x ' *nr_folios = [1-9][0-9]*'
kho-guest same scratch <$D/out/scratch_phys
