-- The request that asked for an operation, if it came under an idempotency key: sent again, it asks for this operation and not for another one.
ALTER TABLE operations ADD COLUMN idempotency BLOB CHECK (idempotency IS NULL OR length(idempotency) = 32);
CREATE UNIQUE INDEX operations_of_request ON operations (idempotency) WHERE idempotency IS NOT NULL;

-- While nobody has the lease: whether it was handed over. While somebody has it: whether it was taken over.
ALTER TABLE operations ADD COLUMN taken_over INTEGER NOT NULL DEFAULT 0 CHECK (taken_over IN (0, 1));

-- As it was when the operation was accepted: a limit for each zone must hold while nothing is known of the cluster, too.
ALTER TABLE operation_targets ADD COLUMN zone TEXT;
