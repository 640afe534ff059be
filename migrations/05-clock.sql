-- The latest time that this database has seen, so that a clock which was set back between two starts makes
-- nothing live longer. There is none where there is nothing to forget.
create table latest_time (
    one integer primary key check (one = 1),
    ms integer not null
) strict;
