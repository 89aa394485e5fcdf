-- Version 2 of the tables: which engine a job is for. What was there is the first engine's.

ALTER TABLE nightshift_jobs ADD COLUMN engine text NOT NULL DEFAULT 'ckks';
UPDATE nightshift_schema SET version = 2;
